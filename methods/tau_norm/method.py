"""Tau-normalisation: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.api import Classifier, Method, Stage
from harness.toolbox.heads import tau_normalize


class TauNorm(Method):
    """No training of its own: the cross-entropy head's rows divided by the power tau of their norm, without bias."""

    name = "tau_norm"
    stages = ("train", "finetune")
    first_stage = "ce"

    @dataclass(frozen=True)
    class Params:
        """tau: 0 leaves the rows alone (but drops the bias), 1 gives them unit norm."""

        tau: float = 1.0

        def __post_init__(self) -> None:
            if not 0 <= self.tau < float("inf"):
                raise ValueError(f"tau must be at least 0, found {self.tau}")

    def continues_head(self) -> bool:
        """The head is what is normalised."""
        return True

    @torch.no_grad()
    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        """w_c / ||w_c||^tau (eq. 4); the bias is dropped."""
        model.head.weight.copy_(tau_normalize(model.head.weight, self.params.tau))
        model.head.bias.zero_()
