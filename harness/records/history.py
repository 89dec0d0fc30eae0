"""What a run leaves for scoring: predictions of each evaluated epoch, final logits, loss and rate of each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.base.errors import UserError
from harness.records.arrays import Arrays, Classes, read_arrays, write_arrays

LOGIT_CLASSES = 200  # all logits up to this many classes, the largest TOP_K beyond
TOP_K = 20
CLASS = "class/"  # before the name of an array that holds a number of each class


@dataclass
class History:
    """Grows during a run and ends as one atomic file. Epochs count from 1; 0 is a run of no epochs."""

    loss: list[float] = field(default_factory=list)  # mean training loss of each epoch
    learning_rate: list[float] = field(default_factory=list)  # of each epoch's last step
    epochs: list[int] = field(default_factory=list)  # the evaluated ones
    test: list[Classes] = field(default_factory=list)  # predicted classes, (N_test,) an evaluated epoch
    val: list[Classes] = field(default_factory=list)
    ece: list[float] = field(default_factory=list)  # on the test part
    top5: list[float] = field(default_factory=list)  # top-5 accuracy on the test part, where there are 100 classes

    def save(
        self,
        path: Path,
        logits: npt.NDArray[np.float32],
        run_key: str,
        quantities: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        """Writes everything as one compressed file.

        Args:
            logits: of the final model on the test part, (N_test, C).
            quantities: numbers of each class, (C,) each, by name (`Method.class_quantities`).
        """
        arrays: Arrays = {
            "run_key": np.array(run_key),
            "loss": np.array(self.loss),
            "learning_rate": np.array(self.learning_rate),
            "epochs": np.array(self.epochs, np.int64),
            "test": np.stack(self.test),
            "val": np.stack(self.val),
            "ece": np.array(self.ece),
        }
        if self.top5:
            arrays["top5"] = np.array(self.top5)
        if logits.shape[1] <= LOGIT_CLASSES:
            arrays["logits"] = logits.astype(np.float16)
        else:
            top = np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K]
            arrays["top_classes"] = top.astype(np.uint16)
            arrays["top_logits"] = np.take_along_axis(logits, top, axis=1).astype(np.float16)
        arrays |= {CLASS + name: values for name, values in (quantities or {}).items()}
        write_arrays(path, arrays)


def class_dtype(num_classes: int) -> type[np.integer]:
    """The smallest unsigned type that holds a class index."""
    return np.uint8 if num_classes <= 256 else np.uint16


ARRAYS = {"run_key", "loss", "learning_rate", "epochs", "test", "val", "ece"}


def read_history(path: Path) -> Arrays:
    """The arrays of a finished run: see `History` (`top5` from 100 classes on), plus `run_key`, `logits` (or
    `top_classes`, `top_logits`) and quantities of the classes, whose names begin with `CLASS`.

    Raises:
        UserError: missing or damaged; every byte is checked against the file's own checksums.
    """
    if not path.is_file():
        raise UserError(f"{path}: missing; the run has not been finished")
    with read_arrays(path, "predictions", "run its stage again") as arrays:
        final = {"top_classes", "top_logits"} if "top_classes" in arrays else {"logits"}
        if {name for name in arrays if not name.startswith(CLASS)} - {"top5"} != ARRAYS | final:
            raise ValueError(f"it holds {', '.join(sorted(arrays)) or 'nothing'}")
    return arrays
