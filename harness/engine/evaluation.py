"""Evaluation: logits of a part as inference uses them, and what of them goes into the history."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.base.errors import RunFailed
from harness.engine.calibration import expected_calibration_error
from harness.engine.job import StageJob
from harness.engine.network import Network
from harness.engine.ranks import Ranks
from harness.feed.parts import LoadedPart
from harness.records.history import History, class_dtype
from harness.splits.splits import Split

TOP5_CLASSES = 100  # top-5 accuracy is measured from so many classes on


class Evaluation:
    """Evaluates a network on test and validation images.

    Attributes:
        last_logits: those of the test part when it was last evaluated; on rank 0.
    """

    def __init__(
        self, job: StageJob, split: Split, data: Mapping[str, LoadedPart], network: Network, ranks: Ranks
    ) -> None:
        self._job, self._split, self._data, self._network, self._ranks = job, split, data, network, ranks
        self.last_logits: Tensor | None = None
        self.notes: tuple[str, ...] = ()  # what a reader of the numbers must know

    def add_to(self, history: History, epoch: int) -> None:
        """Writes down what is predicted after epoch `epoch` (from 0)."""
        dtype = class_dtype(self._split.num_classes)
        logits, val = self._averaged("test", epoch), self._averaged("val", epoch)
        history.epochs.append(min(epoch + 1, self._job.recipe.epochs))
        if logits is None or val is None:  # rank 0 has them
            return
        self.last_logits = logits
        predictions = logits.argmax(1)
        confidence = logits.double().softmax(1).max(1).values
        targets = torch.from_numpy(self._split.test.targets())
        history.ece.append(round(expected_calibration_error(confidence, predictions == targets), 6))
        if logits.shape[1] >= TOP5_CLASSES:
            history.top5.append(float((logits.topk(5).indices == targets[:, None]).any(1).double().mean()))
        history.test.append(predictions.numpy().astype(dtype))
        history.val.append(val.argmax(1).numpy().astype(dtype))

    def final_logits(self, epoch: int) -> Tensor | None:
        """Of the test part; on rank 0."""
        if self._job.recipe.ema:
            self._note_raw_weights(self._predict("test", epoch))
        resumed_at_the_end = self._ranks.told(self.last_logits is None)
        return self._averaged("test", epoch) if resumed_at_the_end else self.last_logits

    def _note_raw_weights(self, logits: Tensor | None) -> None:
        if logits is not None:
            right = (logits.argmax(1) == torch.from_numpy(self._split.test.targets())).double().mean()
            ema, stage = self._job.recipe.ema, self._job.stage
            self.notes = (f"{stage}: averaged weights (ema {ema}); the raw ones end at {100 * right:.2f} %",)

    def _averaged(self, part: str, epoch: int) -> Tensor | None:
        """As `_predict`, of the averaged weights where the recipe has them."""
        with self._network.average_weights.in_place():
            return self._predict(part, epoch)

    @torch.no_grad()
    def _predict(self, part: str, epoch: int) -> Tensor | None:
        """Logits as inference uses them, on the CPU in float32, shape (N, C); on rank 0."""
        self._network.model.eval()
        logits = self._logits(part)
        if self._job.recipe.flip_average:
            logits = (logits + self._logits(part, mirrored=True)) / 2
        if not all(self._ranks.told(self._ranks.gathered(bool(torch.isfinite(logits).all())))):
            raise RunFailed(
                f"logits on the {part} part are not finite after epoch {epoch + 1}", epoch=epoch + 1, agreed=True
            )
        return self._ranks.rows(logits)

    def _logits(self, part: str, *, mirrored: bool = False) -> Tensor:
        """Of this rank's images."""
        which = self._ranks.chunk(len(self._data[part]))
        network = self._network
        chunks = [
            network.method.inference(network.model.head(features), self._job.stage).float().cpu()
            for features in network.part_features(part, which, mirrored=mirrored)
        ]
        return torch.cat(chunks) if len(which) else torch.empty(0, self._split.num_classes)
