"""The same seed in new processes: which files have the same bytes, with one thread and with two?

`python -m tests.faults.determinism --json FILE` runs a two-stage entry twice with each number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.faults import pipeline

ENTRY = pipeline.COMMANDS["run crt"]
REPEATS = 2


def fingerprints(threads: int, root: Path) -> list[dict[str, str]]:
    """The files of each repeat, by their sha256."""
    os.environ["LTBENCH_THREADS"] = str(threads)
    found = []
    for repeat in range(REPEATS):
        folder = root / f"{threads}-{repeat}"
        if code := pipeline.command(folder, ENTRY):
            raise SystemExit(f"the command ended with {code}: {(folder / 'log.txt').read_text()}")
        found.append(pipeline.fingerprint(folder))
    return found


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of the files that are not the same."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def main() -> int:
    """The command line; 1 where repeats with one number of threads differ."""
    parser = argparse.ArgumentParser(description="Compare repeats of a run.")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    pipeline.import_everything()
    with tempfile.TemporaryDirectory(prefix="ltbench-bits-") as root:
        one, two = (fingerprints(threads, Path(root)) for threads in (1, 2))
    figures = {
        "files": len(one[0]),
        "differ between repeats with 1 thread": differing(*one),
        "differ between repeats with 2 threads": differing(*two),
        "differ between 1 and 2 threads": differing(one[0], two[0]),
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 1 if differing(*one) or differing(*two) else 0


if __name__ == "__main__":
    sys.exit(main())
