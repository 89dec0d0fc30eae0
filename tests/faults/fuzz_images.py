"""Fuzzing of the image readers: modes x formats x EXIF x sizes x damage.

`python -m tests.faults.fuzz_images --inputs 20000 --json FILE`. Each input is a small image file (see
`tests/data/pictures.py`), as it is in two of three cases, else damaged. All readers (`verify`, archives, folders, the
streaming reader) must read it or refuse it with one line, in bounded time and memory, and agree. What is whole must
show what was put into it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from harness.base.errors import UserError
from harness.feed.image_reader import ImageReader, Request
from harness.reading.decoding import decode_image, decode_resized, inspect, read_image
from harness.reading.pixels import Pixels, to_pixels
from harness.spec.stage_recipe import Augment
from tests.data.pictures import KINDS, Picture, oriented, upright
from tests.faults.fuzz import MEMORY, in_time, one_line

SIDE, CROPPED = 8, 7  # pixels of a square image, and what the streaming reader cuts out of one
DAMAGES = ("cut off", "bytes changed", "bytes lost", "bytes doubled")


def damaged(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """The file with one kind of damage, and which."""
    kind = str(rng.choice(DAMAGES))
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 20))
    if kind == "cut off":
        return kind, data[:at]
    if kind == "bytes lost":
        return kind, data[:at] + data[at + length :]
    if kind == "bytes doubled":
        return kind, data[: at + length] + data[at:]
    changed = bytearray(data)
    for place in rng.integers(len(data), size=rng.integers(1, 5)):
        changed[place] = rng.integers(256)
    return kind, bytes(changed)


def outcome(read: Callable[[], Pixels]) -> Pixels | str:
    """Pixels, or the one line that says why there are none."""
    try:
        with in_time():
            return read()
    except (ValueError, UserError) as error:
        one_line(UserError(str(error)))
        return str(error)


def readings(data: bytes, folder: Path) -> dict[str, Pixels | str]:
    """What each reader makes of a file."""
    (folder / "x").write_bytes(data)
    nothing = np.empty((1, 0), np.int64), np.empty((1, 0), np.float32)
    request = Request([str(folder / "x")], None, *nothing, True)
    stream = ImageReader((CROPPED, CROPPED, 3), Augment())
    found = {
        "stored": outcome(lambda: read_image(data, lambda image: to_pixels(image, 3))),
        "upright": outcome(lambda: read_image(data, lambda image: to_pixels(image, 3, upright=True))),
        "grey": outcome(lambda: read_image(data, lambda image: to_pixels(image, 1))),
        "folder": outcome(lambda: decode_resized(data, SIDE)),
        "stream": outcome(lambda: stream.read(request)[0]),
    }
    stored = found["stored"]
    shape = stored.shape if isinstance(stored, np.ndarray) else (SIDE, SIDE, 3)
    found["archive"] = outcome(lambda: decode_image(data, (shape[0], shape[1], 3)))
    with in_time():
        found["verify"] = inspect(data).fault
    return found


def agree(found: dict[str, Pixels | str]) -> None:
    """Raises AssertionError where one reader reads what another one refuses, or reads it otherwise."""
    refused = isinstance(found["stored"], str)
    for name, result in found.items():
        said = bool(result) if name == "verify" else isinstance(result, str)
        if said != refused and "limit is" not in str(result):
            raise AssertionError(f"{name}: {str(result)[:200]!r}; as stored: {str(found['stored'])[:200]!r}")
    if isinstance(found["stored"], np.ndarray) and isinstance(found["archive"], np.ndarray):
        np.testing.assert_array_equal(found["archive"], found["stored"])
    seen, streamed = found["upright"], found["stream"]
    if isinstance(seen, np.ndarray) and isinstance(streamed, np.ndarray) and seen.shape[:2] == (SIDE, SIDE):
        np.testing.assert_array_equal(found["folder"], seen)
        np.testing.assert_array_equal(streamed, seen[:CROPPED, :CROPPED])


def truthful(picture: Picture, orientation: int, found: dict[str, Pixels | str]) -> None:
    """Raises AssertionError where a whole file is not read as what it shows, or not refused for the right reason."""
    if picture.shown is None:
        assert picture.refusal in str(found["stored"]), found["stored"]
        return
    seen = upright(picture.shown, orientation)
    grey = (picture.shown @ [0.299, 0.587, 0.114])[..., None]
    expected = {"stored": (picture.shown, 0.0), "upright": (seen, 0.0), "grey": (grey, 1.0)}
    if seen.shape[:2] == (SIDE, SIDE):
        expected |= {"folder": (seen, 0.0), "stream": (seen[:CROPPED, :CROPPED], 0.0)}
    for name, (values, more) in expected.items():
        result = found[name]
        assert isinstance(result, np.ndarray), f"{name}: {result}"
        assert result.shape == values.shape, f"{name}: {result.shape}, expected {values.shape}"
        off = np.abs(result - values).max()
        assert off <= picture.tolerance + more, f"{name}: off by {off}"


def feed(number: int, seed: int, folder: Path) -> tuple[str, str]:
    """Tries one input; returns its kind and what became of it.

    Raises:
        Exception: anything but a clear refusal.
    """
    kind = sorted(KINDS)[number % len(KINDS)]
    rng = np.random.default_rng([seed, number])
    height, width = (SIDE, SIDE) if rng.random() < 0.5 else rng.integers(1, 24, 2).tolist()
    picture, orientation = KINDS[kind](rng, height, width), int(rng.integers(1, 9))
    data = oriented(picture.data, orientation)
    whole = rng.random() < 2 / 3
    damage, given = ("whole", data) if whole else damaged(data, rng)
    found = readings(given, folder)
    agree(found)
    if whole:
        truthful(picture, orientation if data != picture.data else 1, found)
    return kind, f"{damage}, {'refused' if isinstance(found['stored'], str) else 'read'}"


def fuzz(
    inputs: int, seed: int, folder: Path, progress: Callable[[str], None]
) -> tuple[Counter[str], dict[str, int], list[str]]:
    """Feeds the readers; returns outcomes, inputs of each kind, and failures."""
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    failures: list[str] = []
    for number in range(inputs):
        try:
            kind, result = feed(number, seed, folder)
            kinds[kind] += 1
            outcomes[result] += 1
        except Exception as error:
            failures.append(f"input {number}: {type(error).__name__}: {error}"[:600])
            progress(failures[-1])
        if number % 2000 == 1999:
            progress(f"{number + 1} inputs, {len(failures)} failures")
    return outcomes, dict(kinds), failures


def main() -> int:
    """The command line; 1 where a reader failed."""
    parser = argparse.ArgumentParser(description="Fuzz the image readers.")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")  # Pillow warns of damage that it then raises, or that does no harm
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ltbench-fuzz-images-") as folder:
        say = partial(print, flush=True)
        outcomes, kinds, failures = fuzz(arguments.inputs, arguments.seed, Path(folder), say)
    figures = {
        "seed": arguments.seed,
        "inputs": arguments.inputs,
        "outcomes": dict(outcomes),
        "kinds": kinds,
        "failures": failures,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps({key: figures[key] for key in ("inputs", "outcomes", "peak_memory_mb", "seconds")}))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
