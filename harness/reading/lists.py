"""Official list files: which images belong to a data set that everybody has on disk in a form of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from harness.base.errors import UserError
from harness.reading.dataset import ImageFiles


def read_list(path: Path, num_classes: int, identity: Callable[[str], str] | None = None) -> ImageFiles:
    """The images of a list file, in its order; they lie beside it.

    Args:
        path: text with one `relative/path label` a line; labels count from 0. A leading slash is passed over.
        num_classes: C.
        identity: how splits name an image, from its name in this list; default by that name.

    Raises:
        UserError: a line of another form, a path that leads out of the folder, or a label that is no class.
    """
    names, labels = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        name, _, label = line.rpartition(" ")
        name = name.strip().lstrip("/")
        if not name or "\0" in name or not re.fullmatch("[0-9]{1,9}", label) or int(label) >= num_classes:
            raise UserError(f"{path}: line {number} is not `relative/path label` with a label below {num_classes}")
        if ".." in PurePosixPath(name).parts or "\\" in name:
            raise UserError(f"{path}: line {number}: its path leads out of the folder")
        names.append(name)
        labels.append(int(label))
    identities = tuple(map(identity, names)) if identity else None
    return ImageFiles(path.parent, tuple(names), np.array(labels, dtype=np.int64), identities)
