"""Columns of Arrow and parquet shards: where each image lies in a file, and its label.

Arrow shards may have either of its formats, for streams (as `save_to_disk` writes them) and for files.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from harness.base.files import atomic_path, sha256_json
from harness.base.progress import counted
from harness.datasets._walk import file_facts

PARQUET = ".parquet"
BATCH = 64  # rows of parquet at a time
END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow shard in the format for streams
FILE = b"ARROW1"  # both ends of one in the format for files


def schema_of(path: Path) -> Any:
    """The columns of a shard, as a `pyarrow.Schema`.

    Raises:
        ValueError: it is cut off; or what pyarrow raises.
    """
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(path) if path.suffix.lower() == PARQUET else _opened(path)[1].schema


def in_place(path: Path, columns: list[str], cache: Path) -> Path:
    """A file in which the images of a shard lie as they are: an Arrow shard itself; of parquet a copy.

    The copy is made once, and again when the shard has changed.

    Args:
        path: the shard.
        columns: that are needed.
        cache: the folder for copies.
    """
    if path.suffix.lower() != PARQUET:
        return path
    import pyarrow as pa
    import pyarrow.parquet

    name, state = (sha256_json(value)[:16] for value in ([str(path), columns], file_facts(path)))
    place = cache / f"shard-{name}-{state}.arrow"
    try:
        _opened(place)
    except (OSError, ValueError):  # missing, or damaged
        with pyarrow.parquet.ParquetFile(path) as file, atomic_path(place) as temporary:
            schema = pa.schema([file.schema_arrow.field(column) for column in columns])
            batches = counted(file.iter_batches(BATCH, columns=columns), f"copying {path.name}")
            with pa.ipc.new_stream(str(temporary), schema) as copy:
                for batch in batches:
                    copy.write_batch(batch.select(columns))
        for old in cache.glob(f"shard-{name}-*.arrow"):
            if old != place:
                old.unlink()
    return place


def _opened(path: Path) -> tuple[int, Any, Iterable[Any]]:
    """Where an Arrow shard lies in memory, a reader of it, and its batches.

    Raises:
        ValueError: it is cut off.
    """
    import pyarrow as pa

    with open(path, "rb") as file:
        data = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    of_files = data[: len(FILE)].to_pybytes() == FILE
    end = FILE if of_files else END
    if data[-len(end) :].to_pybytes() != end:
        raise ValueError("damaged or cut off: it has no end mark")
    reader = pa.ipc.open_file(data) if of_files else pa.ipc.open_stream(data)
    return data.address, reader, map(reader.get_batch, range(reader.num_record_batches)) if of_files else reader


def values(path: Path, image: str, label: str) -> Iterator[tuple[Any, tuple[int, int] | None]]:
    """Label, and start and bytes of the image, of each row of an Arrow shard; None: no image.

    Raises:
        ValueError: they do not lie in the file as they are.
    """
    import pyarrow.types as kinds

    start, _, batches = _opened(path)
    for batch in batches:
        batch.validate(full=True)  # offsets lead nowhere else
        column = batch.column(image)
        if kinds.is_struct(column.type):
            column = column.flatten()[column.type.get_field_index("bytes")]
        _, offsets, data = column.buffers()
        shift = data.address - start if data else 0
        if not 0 <= shift <= path.stat().st_size - (data.size if data else 0):
            raise ValueError("its batches are packed; save it without compression, or as parquet")
        width = np.int64 if kinds.is_large_binary(column.type) else np.int32
        ends = np.frombuffer(offsets or b"", width)[column.offset : column.offset + len(column) + 1].tolist()
        for value, valid, (one, next_one) in zip(
            batch.column(label).to_pylist(), column.is_valid().to_pylist(), pairwise(ends), strict=True
        ):
            yield value, (shift + one, next_one - one) if valid else None
