"""A run that takes milliseconds: `main(ROOT, KEY, WHAT)`; its result is ROOT/records/KEY.json.

ROOT/starts.txt has a line for each start of each run; ROOT/overlaps.txt one for each start while the same run was on.
"""

import fcntl
import json
import os
import signal
import time
from pathlib import Path


def append(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, f"{text}\n".encode())
    os.close(handle)


def ancestor(generations: int) -> int:
    """0 is this attempt, 1 the process of the engine that started it."""
    process = os.getpid()
    for _ in range(generations):
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process


def main(folder: str, key: str, what: str) -> int:
    root = Path(folder)
    busy = os.open(root / f"busy-{key}", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
    except BlockingIOError:
        append(root / "overlaps.txt", key)
    append(root / "starts.txt", key)
    first = (root / "starts.txt").read_text().split().count(key) == 1
    if what.startswith("killed") and first:
        os.kill(ancestor(int(what[-1])), signal.SIGKILL)
        time.sleep(60)  # it ends with the process that started it
    if what.startswith("says "):
        name = what.removeprefix("says ")
        print(f"{name}={os.environ.get(name)}")
    if what.startswith("writes "):
        (root / what.removeprefix("writes ")).write_text("new")
    if what.startswith("reads ") and (root / what.removeprefix("reads ")).read_text() == "dam":
        print("error: damaged")
        return 2
    if what == "fails":
        print("cannot do it")
        return 1
    if what == "is a failure":
        print("failed: loss is nan")
        return 3
    if what == "waits":
        until = time.monotonic() + 60
        while not (root / "go").exists() and time.monotonic() < until:
            time.sleep(0.02)
    if what != "leaves nothing":
        (root / "records").mkdir(exist_ok=True)
        (root / f"records/{key}.tmp").write_text(json.dumps({"key": key}))
        (root / f"records/{key}.tmp").replace(root / f"records/{key}.json")
    return 0
