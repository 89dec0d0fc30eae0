"""Hugging Face data sets on the user's disk: parquet shards, or the Arrow shards that `save_to_disk` writes.

The library `datasets` is not needed, only pyarrow. Images of Arrow shards are read where they lie. Parquet is packed
so that no single row can be read, so its images and labels are copied once, to Arrow shards in the data root.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import UserError, reason
from harness.datasets._arrow import PARQUET, in_place, schema_of, values
from harness.datasets._rows import Row, classify, label_of, shards
from harness.datasets._walk import Found
from harness.reading.archives import DAMAGE
from harness.reading.pieces import Piece

LAYOUT = (
    "hf:PATH needs train-*.parquet and test-*.parquet, or the folder of a DatasetDict that save_to_disk wrote; "
    "with a training part alone, --holdout 0.2 sets some images aside"
)
SHOWN = 9  # columns that a message names


def read_huggingface(root: Path, *, parts_of_its_own: bool, cache: Path, columns: str = "") -> Found:
    """The images of a data set's shards.

    Args:
        root: the folder.
        parts_of_its_own: whether there are shards of a test part.
        cache: the folder for copies of parquet shards.
        columns: which columns hold image and label, with a comma between them, where it is not clear.

    Raises:
        UserError: pyarrow is not installed, no such folder, or no shards of a part. Other faults are noted: a shard
            cut off, no such columns, an image or a label that is null, a label that is no class.
    """
    try:
        from pyarrow import ArrowException
    except ImportError:
        raise UserError("hf:PATH needs pyarrow: pip install 'ltbench[hf]'") from None
    found, rows, order = Found([]), dict[str, list[Row]](), list[str]()
    parts = shards(root, found, (PARQUET, ".arrow"), LAYOUT, parts_of_its_own=parts_of_its_own)
    for part, files in parts.items():
        rows[part] = []
        for file in files:
            try:
                names = _read(root, file, columns, cache, rows[part], found)
                order = order or names
            except (ArrowException, KeyError, MemoryError, *DAMAGE) as error:
                if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what the file holds
                    raise
                found.faults.append(f"{root / file}: {reason(error)}")
    return classify(found, rows, root, order)


def _read(root: Path, file: str, asked: str, cache: Path, rows: list[Row], found: Found) -> list[str]:
    """Adds the rows of a shard; returns the names of its classes in label order, if it has some.

    Raises:
        ValueError: it has no such columns, or is damaged; then also `DAMAGE`, KeyError and what pyarrow raises.
    """
    path = root / file
    schema = schema_of(path)
    names = _class_names(schema)
    image, label = _columns(schema, asked, names)
    place, order = in_place(path, [image, label], cache), names.get(label, [])
    stands_for: dict[Any, str] = dict(enumerate(order)) | {name: name for name in order}
    for number, (value, span) in enumerate(values(place, image, label)):
        where, member = f"{path}, row {number}", f"{file}/{number}"
        known = stands_for.get(value) if order else label_of(value)
        if known is None:
            what = f"none of its {len(order)} classes" if order else "neither text nor a whole number"
            found.faults.append(f"{where}: '{label}' is {what}: {str(value)[:40]}")
        elif span is None:
            found.faults.append(f"{where}: there is no image in '{image}'")
            rows.append(Row(None, known, where))
        else:
            found.pieces[member] = Piece(str(root), member, str(place), *span)
            rows.append(Row(member, known, where))
    return order


def _columns(schema: Any, asked: str, classes: dict[str, list[str]]) -> tuple[str, str]:
    """The columns that hold image and label.

    Raises:
        ValueError: it is not clear which.
    """
    import pyarrow.types as kinds

    types = dict(zip(schema.names, schema.types, strict=True))
    has = "its columns: " + ", ".join([f"{name} ({kind})" for name, kind in types.items()][:SHOWN])
    wanted = asked.split(",") if asked else []
    if strange := [name for name in wanted if name not in types]:
        raise ValueError(f"there is no column '{strange[0]}'; {has}")

    def one(what: str, *choices: Sequence[str]) -> str:
        names = next(filter(None, choices), ())
        if len(names) != 1:
            why = f"{len(names)} columns may hold {what} ({', '.join(names)})" if names else f"no column holds {what}"
            raise ValueError(f"{why}; {has}; to name it: hf:PATH#COLUMN")
        return names[0]

    binary = (kinds.is_binary, kinds.is_large_binary)
    plain = (kinds.is_integer, kinds.is_string, kinds.is_large_string, kinds.is_dictionary)
    images = [name for name, kind in types.items() if any(test(_bytes_of(kind)) for test in binary)]
    labels = [name for name, kind in types.items() if any(test(kind) for test in plain)]
    return (
        one("images", [n for n in images if n in wanted], [n for n in images if n == "image"], images),
        one("labels", [n for n in labels if n in wanted], [n for n in labels if n == "label"], [*classes]),
    )


def _bytes_of(kind: Any) -> Any:
    """The type of the field `bytes` of a struct, as images are stored; of anything else its own."""
    place = kind.get_field_index("bytes") if hasattr(kind, "get_field_index") else -1
    return kind.field(place).type if place >= 0 else kind


def _class_names(schema: Any) -> dict[str, list[str]]:
    """The names of classes, in label order, of each column of the type ClassLabel.

    Raises:
        ValueError: a name stands twice.
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        written = {name: [label_of(own) or "" for own in feature["names"]]
                   for name, feature in features.items() if feature["_type"] == "ClassLabel"}  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):  # not from there
        return {}
    for name, names in written.items():
        if len({*names}) < len(names):
            raise ValueError(f"two classes of '{name}' have the same name")
    return {name: names for name, names in written.items() if name in schema.names}
