"""BALMS: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Batch, Classifier, Method, Sampler, Stage, StepContext, StepModel, View, later
from harness.toolbox.losses import balanced_softmax_loss, log_prior
from harness.toolbox.samplers import make_sampler
from methods.balms.meta_sampler import draw_slots, inner_gradient, stepped

__all__ = ["BALMS", "balanced_softmax_loss", "draw_slots", "inner_gradient"]


class BALMS(Method):
    """Balanced Softmax on a new head, and a sampler whose class rates psi = sigmoid(omega) are learned on the way.

    A step: images are drawn with rates psi; one differentiable SGD step of the head on them; a class-balanced batch
    says how good that step was, and Adam moves omega; then the real step. The inner step's gradient has a closed form
    for a linear head (it is checked against autograd in the tests).
    """

    name = "balms"
    stages = ("train", "finetune")
    first_stage = "ce"
    only_sgd = "its inner step is one of SGD"

    @dataclass(frozen=True)
    class Params:
        """initial_power a: psi starts at p^-a / (min + max of it), p_c = n_c / N; 0 is instance-balanced.

        sampler: the learned one, or a fixed one in its place, to be held against it.
        prior_power p: of the loss CE(z + p log n, y); 0 is softmax cross-entropy, 1/4 the paper's other form.
        reweight: psi weighs the losses of instance-balanced draws instead of drawing. Our reading of the paper's "Meta
            Reweighter", which is not released; psi starts at 1/2, so the real step is half as long at first.
        """

        meta_learning_rate: float = 0.01
        meta_batch_size: int = 512
        adam_beta2: float = 0.999
        initial_power: float = 0.0
        meta_source: Literal["train", "val"] = "train"
        sampler: Literal["meta", "class_balanced", "class_aware", "instance_balanced"] = "meta"
        prior_power: float = later(1.0)
        reweight: bool = later(False)

        def __post_init__(self) -> None:
            if not 0 <= self.prior_power < float("inf"):
                raise ValueError(f"prior_power must be at least 0, found {self.prior_power}")
            if self.reweight and self.sampler != "meta":
                raise ValueError(f"reweight learns weights in the place of rates; sampler is {self.sampler}, not meta")
            if not 0 <= self.adam_beta2 < 1:
                raise ValueError(f"adam_beta2 must lie in [0, 1), found {self.adam_beta2}")
            if not self.meta_learning_rate > 0 or self.meta_batch_size < 1:
                raise ValueError(f"{self.meta_learning_rate=} must be above 0, {self.meta_batch_size=} at least 1")

    @property
    def meta(self) -> bool:
        """Whether class rates are learned."""
        return bool(self.params.sampler == "meta")

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        """Starts the class rates."""
        inverse = (self.task.class_counts.clamp_min(1) / self.task.class_counts.sum()).pow(-self.params.initial_power)
        device = model.head.weight.device
        self.omega = torch.logit(inverse / (inverse.min() + inverse.max())).to(device).requires_grad_()
        betas = (0.9, self.params.adam_beta2)
        rate, on_device = self.params.meta_learning_rate, device.type == "cuda"
        self.adam = torch.optim.Adam([self.omega], lr=rate, betas=betas, capturable=on_device)  # its count of steps too

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """The Meta Sampler uses the labels of the planned order and not that order; the fixed ones plan it."""
        self.labels = torch.from_numpy(labels).to(self.task.class_counts.device)
        return make_sampler("instance_balanced" if self.meta else self.params.sampler, labels, self.task.num_classes)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """A class-balanced batch beside the one that is learned from."""
        balanced = View(balanced=self.params.meta_batch_size, part=self.params.meta_source)
        return (*super().views(labels, stage), balanced) if self.meta else super().views(labels, stage)

    def choose(self, index: Tensor, step: StepContext) -> Tensor:
        """Draws with replacement, slots independent, an image of class c at rate psi_c / sum of all images' psi."""
        if not self.meta or self.params.reweight:
            return index
        log_psi = F.logsigmoid(self.omega.detach())
        chosen, self.weight, self.class_share = draw_slots(log_psi, self.labels, len(index), step.generator)
        return chosen

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """The class rates move before the head does."""
        features, logits = model.embed(views[0].images)
        if self.meta:
            self._meta_step(model, features, views, step)
        return views[0].mixed(lambda target: self.loss(logits, target, step))

    @torch.no_grad()
    def _meta_step(self, model: StepModel, features: Tensor, views: tuple[Batch, ...], step: StepContext) -> None:
        """Inner step of the head, meta loss on the balanced batch, closed form back to omega."""
        head, target, meta = step.model.head, views[0].target, views[1]
        prior = log_prior(self.task.class_counts, features, self.params.prior_power)
        residual = F.softmax(head(features) + prior, dim=1) - F.one_hot(target, len(prior)).to(features)
        weighted = self._psi(target)[:, None].to(residual) * residual if self.params.reweight else residual
        weight = stepped(head.weight, model.average(weighted.T @ features / len(target)), step)
        bias = stepped(head.bias, model.average(weighted.mean(0)), step)

        held_out = model.extract(meta.images)
        error = F.softmax(held_out @ weight.T + bias, dim=1) - F.one_hot(meta.target, len(prior)).to(features)
        error /= len(error)
        nesterov = step.optimizer.param_groups[0]["nesterov"] * step.optimizer.param_groups[0]["momentum"]
        rate = step.learning_rate * (1 + nesterov)
        by_slot = inner_gradient(residual, features, error.T @ held_out, error.sum(0), rate)
        self.omega.grad = model.average(self._to_omega(by_slot, target)).to(self.omega)
        self.adam.step()

    def _to_omega(self, by_slot: Tensor, target: Tensor) -> Tensor:
        """ds_b / domega_c = q_b (1 - psi_c) (1[c = y_b] - share of class c in slot b); of a weight, its own."""
        if self.params.reweight:
            psi = torch.sigmoid(self.omega).to(by_slot)
            return psi * (1 - psi) * torch.zeros_like(psi).index_add_(0, target, by_slot)
        chosen = F.one_hot(target, len(self.omega)).to(self.class_share)
        return (1 - torch.sigmoid(self.omega)) * ((by_slot * self.weight)[:, None] * (chosen - self.class_share)).sum(0)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean Balanced Softmax loss, with the counts of the training part; times psi where it is a weight."""
        counts, power = self.task.class_counts, self.params.prior_power
        if not self.params.reweight:
            return balanced_softmax_loss(logits, target, counts, prior_power=power)
        losses = balanced_softmax_loss(logits, target, counts, "none", prior_power=power)
        return (self._psi(target).to(losses) * losses).mean()

    def _psi(self, target: Tensor) -> Tensor:
        """The learned number of each image's class, fixed."""
        return torch.sigmoid(self.omega.detach())[target]

    def class_quantities(self, model: Classifier) -> dict[str, Tensor]:
        """The rates (or weights) psi_c at which training ended as well."""
        name = "loss weight" if self.params.reweight else "sampling rate"
        learned = {name: torch.sigmoid(self.omega.detach())} if self.meta else {}
        return {**super().class_quantities(model), **learned}

    def state_dict(self) -> dict[str, Any]:
        """The rates and their optimiser."""
        return {"omega": self.omega.detach(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        with torch.no_grad():
            self.omega.copy_(state["omega"])
        self.adam.load_state_dict(state["adam"])
