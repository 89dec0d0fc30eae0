"""WebDataset shards: tar archives whose members `<key>.jpg` and `<key>.cls` are an image and its label.

Images are read where they lie in the shards: nothing is unpacked, and any one can be read on its own. The label is
the text of `<key>.cls`, or `label` in `<key>.json`; `wds:PATH#NAME` takes `<key>.NAME`, or `NAME` in the JSON.
"""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from harness.base.errors import reason
from harness.datasets._rows import Row, classify, label_of, shards
from harness.datasets._walk import JUNK, Found, plain
from harness.reading.archives import BUFFER, DAMAGE
from harness.reading.decoding import SUFFIXES
from harness.reading.pieces import Piece

LAYOUT = (
    "wds:PATH needs shards called train-*.tar and test-*.tar; with train-*.tar alone, --holdout 0.2 sets some aside"
)
PACKED = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
MOST_TEXT = 2**20  # bytes of a label's member
BLOCK = 512  # bytes of a tar archive's unit


@dataclass
class Sample:
    """What the members of one key are."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)  # member -> start and bytes in the shard
    texts: dict[str, bytes] = field(default_factory=dict)  # extension -> content, of those that may hold the label


def read_webdataset(root: Path, *, parts_of_its_own: bool, label: str = "") -> Found:
    """The images of shards.

    Args:
        root: the folder.
        parts_of_its_own: whether there are shards of a test part.
        label: the extension, or the key in the JSON, that holds the label; default `cls`, or `label` in the JSON.

    Raises:
        UserError: no such folder, or no shards of a part. Other faults are noted: a shard cut off, a key in two
            shards of a part, an image without a label.
    """
    found, rows = Found([]), dict[str, list[Row]]()
    parts = shards(root, found, (".tar", *PACKED), LAYOUT, parts_of_its_own=parts_of_its_own)
    for part, files in parts.items():
        rows[part], seen = [], dict[str, str]()
        for file in files:
            if file.lower().endswith(PACKED):
                found.faults.append(f"{root / file}: a packed shard cannot be read image by image; unpack it to .tar")
                continue
            for key, sample in _samples(root / file, label or "cls", found).items():
                where = f"{root / file}: '{plain(key)}'"
                if (other := seen.setdefault(key, file)) != file:
                    found.faults.append(f"{where} is also a key in {other}; a part needs each key once")
                elif row := _row(root, file, where, sample, label, found):
                    rows[part].append(row)
    return classify(found, rows, root)


def _row(root: Path, file: str, where: str, sample: Sample, label: str, found: Found) -> Row | None:
    """An image with its label; a fault where there is not one of each."""
    if len(sample.images) != 1:
        several = f"several images: {', '.join(map(plain, sample.images))}"
        found.faults.append(f"{where} has {several if sample.images else 'a label but no image'}")
        return None
    try:
        name = _label(sample, label)
    except (ValueError, RecursionError) as error:
        found.faults.append(f"{where}: {reason(error)}")
        return None
    ((member, (start, size)),) = sample.images.items()
    found.pieces[f"{file}/{member}"] = Piece(str(root), f"{file}/{member}", str(root / file), start, size)
    return Row(f"{file}/{member}", name, where)


def _label(sample: Sample, name: str) -> str:
    """The label of a sample.

    Raises:
        ValueError: there is none.
    """
    value: object = None
    if text := sample.texts.get(name or "cls"):
        value = text.decode()
    elif "json" in sample.texts:
        content = json.loads(sample.texts["json"])
        keys = list(content) if isinstance(content, dict) else []
        if (name or "label") not in keys:
            hint = "" if name else "; which one holds the label: wds:PATH#KEY"
            raise ValueError(f"its JSON has no '{name or 'label'}' but {', '.join(keys[:9]) or 'no keys'}{hint}")
        value = content[name or "label"]
    else:
        raise ValueError(f"no label: neither .{name or 'cls'} nor .json has its key")
    if (found := label_of(value)) is None:
        raise ValueError(f"its label is neither text nor a whole number: {str(value)[:40]!r}")
    return found


def _samples(path: Path, text: str, found: Found) -> dict[str, Sample]:
    """The samples of a shard by their keys; what is wrong with it as a whole is noted."""
    samples = defaultdict[str, Sample](Sample)
    try:
        with open(path, "rb") as file:
            for header, key, extension in _members(file, path, found):
                sample = samples[key]
                if header.name in sample.images or extension in sample.texts:
                    found.faults.append(f"{path}: '{plain(header.name)}' is there twice")
                elif f".{extension.lower()}" in SUFFIXES:
                    sample.images[header.name] = (header.offset_data, header.size)
                elif extension in (text, "json") and header.size <= MOST_TEXT:
                    file.seek(header.offset_data)
                    sample.texts[extension] = file.read(header.size)
                else:
                    found.skipped[f".{plain(extension)}"].append(plain(f"{path.name}/{header.name}"))
    except DAMAGE as error:
        found.faults.append(f"{path}: damaged or cut off: {reason(error)}")
    return {key: sample for key, sample in samples.items() if sample.images or sample.texts}


def _members(file: BinaryIO, path: Path, found: Found) -> Iterator[tuple[tarfile.TarInfo, str, str]]:
    """Header, key and extension of each file in a shard.

    Raises:
        tarfile.TarError: it is no tar archive, or does not end as one does.
    """
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for header in archive:
            folder, slash, base = header.name.rpartition("/")
            stem, dot, extension = base.partition(".")
            if header.size < 0 or header.issparse():
                raise tarfile.ReadError(f"member '{plain(header.name)}' is no plain file")
            if header.isreg() and stem and dot and base.lower() not in JUNK:
                yield header, f"{folder}{slash}{stem}", extension
            elif not header.isdir() and stem:
                found.skipped["without key and extension"].append(plain(f"{path.name}/{header.name}"))
        file.seek(archive.offset)
    if len(mark := file.read(BLOCK)) < BLOCK or any(mark):
        raise tarfile.ReadError("it has no end mark")
    while rest := file.read(BUFFER):
        if any(rest):
            raise tarfile.ReadError("there is more after its end mark")
