"""Folders and lists as users might have them, for fuzzing: every file of one is used, named as passed over, or junk."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from harness.base.errors import UserError
from harness.datasets import _folder
from harness.datasets._csv_lists import read_lists
from harness.datasets._walk import Found
from tests.data import made

IMAGES = [made.encoded(made.pixels(i, (6 + i, 5, 3)), "PNG") for i in range(4)]
NAMES = (
    "train",
    "val",
    "test",
    "a",
    "b",
    "c\udce9",
    "d e",
    "É.png",
    "x.png",
    "y.JPG",
    "z.tif",
    "n.txt",
    ".h",
    "Thumbs.db",
)
KINDS = ("folder", "image 0", "image 1", "image 2", "image 3", "damaged", "empty", "link up", "link a", "dead", "pipe")
LIST = "path,label\nx.png,a\ny z.png,b\nx.png,a\ny z.png,b\n"

entry = st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5), st.sampled_from(KINDS))
usual = st.tuples(
    st.tuples(st.sampled_from(NAMES[:3]), st.sampled_from(NAMES[3:7]), st.sampled_from(NAMES[7:])).map(list),
    st.sampled_from(KINDS[1:5]),
)
WHOLE = [
    (["train", "a", "x.png"], "image 0"),
    (["train", "b", "x.png"], "image 1"),
    (["test", "a", "x.png"], "image 2"),
]
PLAIN = [(["a", "x.png"], "image 0"), (["b", "x.png"], "image 1"), (["b", "y.JPG"], "image 2")]
extra = st.lists(usual | usual | entry, max_size=6)
trees = st.tuples(extra.map(lambda e: WHOLE + e), st.just(0.0)) | st.tuples(
    extra.map(lambda e: PLAIN + e), st.just(0.3)
)


def folder(place: Path, tree: tuple[list[tuple[list[str], str]], float]) -> Any:
    """Makes a folder and opens it as a data set."""
    root, (entries, holdout) = place / "tree", tree
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for parts, kind in entries:
        _make(root.joinpath(*parts), kind, root)
    _folder._scan.cache_clear()
    try:
        dataset = _folder.open_folder(f"folder:{root}", place / "data", holdout)
    except OSError as error:  # the command line makes one line of it
        raise UserError(f"{error.filename}: {error.strerror}") from None
    assert dataset.listed is not None
    listed = dataset.listed()
    used = [name for images in listed.values() for name in images.names]
    assert len(used) == len(set(used))
    skipped = sum(int(re.findall(r"passed over: (\d+) x", line)[0]) for line in dataset.passed_over)
    beside = [e.name for e in os.scandir(root) if e.name not in ("train", "val", "test") and not _junk(e.name)]
    inside = ["train", "val", "test"] if (root / "train").is_dir() else ["."]
    files = sum(_count(root / part) for part in inside)
    assert len(used) + skipped == files + (len(beside) if inside != ["."] else 0), (used, dataset.passed_over)
    held = Counter(int(label) for label in listed["train"].labels)
    assert len(held) == dataset.num_classes >= 2
    return dataset.name


def _make(path: Path, kind: str, root: Path) -> None:
    try:
        (path if kind == "folder" else path.parent).mkdir(parents=True, exist_ok=True)
        if path.exists():
            return
        if kind.startswith("image"):
            path.write_bytes(IMAGES[int(kind[-1])])
        elif kind in ("damaged", "empty"):
            path.write_bytes(IMAGES[0][:30] if kind == "damaged" else b"")
        elif kind in ("link up", "link a", "dead"):
            to: dict[str, str | Path] = {"link up": "..", "link a": root / "train" / "a", "dead": "gone"}
            path.symlink_to(to[kind])
        elif kind == "pipe":
            os.mkfifo(path)
    except OSError:  # something else has that name, or a part of its path is a link
        pass


def _junk(name: str) -> bool:
    return name.startswith(".") or name == "Thumbs.db"


def _count(folder: Path) -> int:
    """Everything but folders and junk, links followed: counted in another way than the data set does."""
    found = 0
    for _, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _junk(name)]
        found += sum(not _junk(name) for name in files)
    return found


def lists(place: Path, data: bytes) -> Found:
    """Writes a training list beside two images and reads it."""
    root = place / "lists"
    root.mkdir(exist_ok=True)
    for name in ("x.png", "y z.png"):
        (root / name).write_bytes(IMAGES[0])
    (root / "train.csv").write_bytes(data)
    (root / "test.csv").write_text("path,label\nx.png,a\n")
    found = read_lists(root, parts_of_its_own=True)
    assert {name for name, _ in found.files["train"]} <= {"x.png", "y z.png", str(root / "x.png")}
    return found
