"""The files that a user's own lists name: `train.csv`, `test.csv` and, if there is one, `val.csv` in one folder.

Each has a head with the columns `path` and `label` in any order; others are passed over. Paths are relative to the
folder or absolute; labels are class names or numbers. Windows line ends, a byte order mark, spaces around values,
semicolons or tabs for commas and backslashes in paths are read as they are meant.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import UserError, reason
from harness.datasets._rows import Row, classify, is_file
from harness.datasets._walk import Found, check_parts, class_name
from harness.reading.dataset import PARTS

NEEDED = ("path", "label")


def read_lists(root: Path, *, parts_of_its_own: bool) -> Found:
    """The images that the lists in a folder name.

    Args:
        root: the folder.
        parts_of_its_own: whether there is a list of test images.

    Raises:
        UserError: a list is missing, or is none with such columns. Faults of single rows are noted with file and
            line: no such image, a label that the training list has not, an image with two labels.
    """
    files = sorted(root.glob("*.[cC][sS][vV]"))
    lists = {path.stem: path for path in files}  # of x.CSV and x.csv the latter
    check_parts(root, lists)
    if not parts_of_its_own and "test" in lists:
        raise UserError(f"{lists['test']}: there is a list of test images; leave out --holdout")
    rows: dict[str, list[Row]] = {}
    found = Found([])
    for part in PARTS:
        if part in lists:
            rows[part] = _checked(lists[part], root, found.faults)
        elif part == "train" or (part == "test" and parts_of_its_own):
            hint = "list:DIR needs train.csv and test.csv with the columns path,label"
            missing = f"{root / part}.csv: no such file; {hint}"
            raise UserError(f"{missing}; without test.csv, --holdout 0.2 sets some images aside")
    classify(found, rows, root, train="train.csv")
    others = [path.name for path in files if path.stem not in PARTS or path != lists[path.stem]]
    found.skipped |= {"lists beside train.csv, val.csv and test.csv": others} if others else {}
    return found


def _checked(path: Path, root: Path, faults: list[str]) -> list[Row]:
    seen: dict[str, tuple[str, int]] = {}
    found = []
    for written, label, line in _rows(path, faults):
        name = next((n for n in (written, written.replace("\\", "/")) if is_file(root / n)), None)
        other, first = seen.setdefault(name or written, (label, line))
        if name is None:
            faults.append(f"{path}, line {line}: no such file: '{written}' (paths are relative to {root})")
        elif other != label:
            faults.append(f"{path}, line {line}: '{written}' is '{label}' here and '{other}' in line {first}")
        found.append(Row(name, label, f"{path}, line {line}"))
    if not found:
        faults.append(f"{path}: lists no images")
    return found


def _rows(path: Path, faults: list[str]) -> Iterator[tuple[str, str, int]]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # a folder or a link to nothing is one line as it is
        head = text.partition("\n")[0]
        between = next((sign for sign in ",;\t" if sign in head), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True, strict=True)
        columns = [column.strip().lower() for column in next(reader, [])]
        if lacking := [name for name in NEEDED if columns.count(name) != 1]:
            raise UserError(f"{path}, line 1: needs one column '{lacking[0]}', has {', '.join(columns) or 'none'}")
        where = [columns.index(name) for name in NEEDED]
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            values = [row[i].strip() if i < len(row) else "" for i in where]
            if all(values):
                yield values[0], class_name(values[1]), reader.line_num
            else:
                faults.append(f"{path}, line {reader.line_num}: path or label is empty")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file: {reason(error)}") from None
