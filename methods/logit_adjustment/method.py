"""Logit adjustment, post hoc: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness.api import Method, Stage


class LogitAdjustment(Method):
    """No training of its own: the cross-entropy model's logits less tau log of the class prior (eq. 9)."""

    name = "logit_adjustment"
    stages = ("train", "finetune")
    first_stage = "ce"

    @dataclass(frozen=True)
    class Params:
        """tau: strength of the adjustment; 1 is the balanced Bayes rule."""

        tau: float = 1.0

    def skip(self) -> str | None:
        """The log of an empty class's prior is not defined."""
        return "a class has no training image" if bool((self.task.class_counts == 0).any()) else None

    def continues_head(self) -> bool:
        """The head is used as it is."""
        return True

    def inference(self, logits: Tensor, stage: Stage) -> Tensor:
        """z_c - tau log(n_c / N)."""
        counts = self.task.class_counts.to(logits)
        prior: Tensor = (counts / counts.sum()).log()
        return logits - float(self.params.tau) * prior
