"""A run that takes milliseconds: `fake.py ROOT KEY WHAT`; its result is ROOT/records/KEY.json.

ROOT/starts.txt has a line for each start of each run; ROOT/overlaps.txt one for each start while the same run was on.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path


def append(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, f"{text}\n".encode())
    os.close(handle)


def ancestor(generations: int) -> int:
    """1 is the attempt that started this command, 2 the process of the engine that started the attempt."""
    process = os.getpid()
    for _ in range(generations):
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process


def main() -> int:
    root, key, what = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    busy = os.open(root / f"busy-{key}", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
    except BlockingIOError:
        append(root / "overlaps.txt", key)
    append(root / "starts.txt", key)
    first = (root / "starts.txt").read_text().split().count(key) == 1
    if what.startswith("killed") and first:
        os.kill(ancestor(int(what[-1])), signal.SIGKILL)
        os.read(0, 1)  # it ends with the attempt that started it, like every command of a sweep
        return 1
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


sys.exit(main())
