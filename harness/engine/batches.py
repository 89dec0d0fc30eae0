"""The batches that a stage trains on: an epoch's plan, its batches with mixup, and held-out ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from harness.api import Batch, Method, StepContext, View
from harness.base.errors import RunFailed
from harness.engine.job import StageJob
from harness.engine.parallel import Mixed
from harness.engine.ranks import Ranks
from harness.engine.seeding import seed_for
from harness.feed.parts import LoadedPart
from harness.feed.plans import EpochPlan, plan_epoch
from harness.feed.resident import ResidentPart
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split
from harness.toolbox.samplers import ClassAwareSampler, Order


class Batches:
    """Draws the batches of a stage, of which this rank gets its share."""

    def __init__(
        self,
        job: StageJob,
        split: Split,
        data: Mapping[str, LoadedPart],
        method: Method,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self._job, self._split, self._data, self._method = job, split, data, method
        self._device, self._ranks, self._train = device, ranks, data["train"]
        first, *self._other_views = method.views(self._train.host_labels, job.stage)
        if first.sampler is None or first.augment != "recipe":
            raise RunFailed("the first of a method's views needs a sampler, and the recipe's augmentation", agreed=True)
        self._sampler, self._other_plans = first.sampler, list[EpochPlan]()
        self._check_views()
        self._held_out_samplers = {
            part: ClassAwareSampler(data[part].host_labels, split.num_classes, k=1) for part in ("train", "val")
        }
        self._held_out_draws = 0
        self._epoch_start = self._sampler_states()

    def _check_views(self) -> None:
        if self._other_views and not isinstance(self._train, ResidentPart):
            raise RunFailed("a second view needs images that fit into memory; these are read from files", agreed=True)

    def _sampler_states(self) -> list[Any]:
        samplers = [self._sampler, *(view.sampler for view in self._other_views)]
        return [sampler and sampler.state_dict() for sampler in samplers]

    # ---- epochs -------------------------------------------------------------------------------------------------

    def plan(self, epoch: int) -> EpochPlan:
        """The epoch's input, from a generator of its own: a resumed epoch draws the same plan again."""
        recipe = self._job.recipe
        rng = np.random.default_rng(seed_for(self._job.seed, self._job.stage, "epoch", str(epoch)))
        order = self._sampler.order(rng)
        plan = self._plan(self._train, order, recipe.batch_size, rng, recipe.mixup_alpha)
        self._other_plans = [
            self._plan_view(view, order, epoch, number) for number, view in enumerate(self._other_views, start=2)
        ]
        return plan

    def _plan_view(self, view: View, order: Order, epoch: int, number: int) -> EpochPlan:
        """Another view's, from a generator of its own too."""
        recipe, names = self._job.recipe, (self._job.stage, "epoch", str(epoch), "view", str(number))
        rng = np.random.default_rng(seed_for(self._job.seed, *names))
        own = order if view.sampler is None else view.sampler.order(rng)
        augments = {"recipe": recipe.augment, "strong": recipe.strong_augment or recipe.augment, "none": Augment()}
        return self._plan(self._train, own, recipe.batch_size, rng, 0.0, augments[view.augment])

    def positions(self, plan: EpochPlan) -> list[slice]:
        """Where in the plan each batch stands."""
        size = self._job.recipe.batch_size
        count = len(plan.order) // size * size if self._job.recipe.drop_last else len(plan.order)
        steps = max(1, -(-count // size))
        return [slice(step * size, min((step + 1) * size, max(count, size))) for step in range(steps)]

    def read_ahead(self, plan: EpochPlan, batches: Sequence[slice]) -> None:
        """Tells the training part which batches will be asked for."""
        if type(self._method).choose is Method.choose:  # the plan stands; nobody chooses other images step by step
            self._train.start_epoch(plan, [self._ranks.share(where) for where in batches])

    def end_epoch(self) -> None:
        """From where the sampler stands now, a resumed run will draw the next plan."""
        self._epoch_start = self._sampler_states()

    def _plan(
        self,
        part: LoadedPart,
        order: Order,
        batch_size: int,
        rng: np.random.Generator,
        mixup_alpha: float,
        augment: Augment | None = None,
    ) -> EpochPlan:
        return plan_epoch(
            order,
            batch_size,
            rng,
            augment=augment or self._job.recipe.augment,
            image_shape=self._split.image_shape,
            mixup_alpha=mixup_alpha,
            device=self._device,
            from_files=not isinstance(part, ResidentPart),
        )

    # ---- batches ------------------------------------------------------------------------------------------------

    def batch(self, plan: EpochPlan, where: slice, step: StepContext) -> Batch:
        """This rank's share of the batch at these positions of the plan."""
        mine = self._ranks.share(where)
        index = self._method.choose(plan.order[mine], step)
        return Batch(self._train.batch(index, plan.augment[mine]), self._train.labels[index], index)

    def others(self, where: slice, first: Batch) -> tuple[Batch, ...]:
        """This rank's share of the other views at these positions, beside the first one's."""
        mine, found = self._ranks.share(where), []
        for view, plan in zip(self._other_views, self._other_plans, strict=True):
            index = first.index if view.sampler is None else plan.order[mine]
            images = self._train.batch(index, None if view.augment == "none" else plan.augment[mine])
            found.append(Batch(images, self._train.labels[index], index))
        return tuple(found)

    def mixed(self, batch: Batch, plan: EpochPlan, where: slice, step: StepContext) -> Mixed:
        """The batch as network and loss see it: with its partners where there is mixup, and what each image counts."""
        return self._weighed(self._with_partners(batch, plan, where), where, step)

    def _with_partners(self, batch: Batch, plan: EpochPlan, where: slice) -> Mixed:
        if self._job.recipe.mixup_alpha == 0:
            return Mixed(batch.images, batch.target, batch.index)
        mine = self._ranks.share(where)
        share, partner = plan.mixup[mine][0], plan.partner[mine]
        if self._ranks.world == 1:
            others, target = batch.images[partner], batch.target[partner]
        else:  # a partner may be another rank's image
            position = where.start + partner
            index = plan.order[position]
            others, target = self._train.batch(index, plan.augment.at(position)), self._train.labels[index]
        return Mixed(share * batch.images + (1 - share) * others, batch.target, batch.index, share, target)

    def _weighed(self, mixed: Mixed, where: slice, step: StepContext) -> Mixed:
        """With what each image counts, where a batch is shared out and its images do not count the same.

        Once a step and before its parts, since the ranks meet here and may have different numbers of parts.
        """
        if self._ranks.world == 1 and not self._job.spread.micro_batch:
            return mixed
        found = (self._method.image_weights(classes, step) for classes in mixed.classes)
        weights = [weight for weight in found if weight is not None]
        if not weights:
            return mixed
        mine = torch.stack(weights).double() * (self._ranks.weight(where) > 0)  # an image done over counts nothing
        return dataclasses.replace(mixed, counts=mine / self._ranks.sum(mine.sum(1, keepdim=True)))

    def held_out(self, size: int, source: str = "train") -> Batch:
        """A class-balanced batch with draws of its own, augmented like the training images."""
        part = self._data[source]
        rng = np.random.default_rng(seed_for(self._job.seed, self._job.stage, "held_out", str(self._held_out_draws)))
        self._held_out_draws += 1
        plan = self._plan(part, self._held_out_samplers[source].draw(size, rng), size, rng, mixup_alpha=0.0)
        return Batch(part.batch(plan.order, plan.augment), part.labels[plan.order], plan.order)

    # ---- resuming -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the samplers stand: that of the training images as when the running epoch began."""
        return {
            "samplers": self._epoch_start,
            "meta_draws": self._held_out_draws,
            "meta_samplers": {part: sampler.state_dict() for part, sampler in self._held_out_samplers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        samplers = [self._sampler, *(view.sampler for view in self._other_views)]
        for sampler, stood in zip(samplers, state["samplers"], strict=True):
            if sampler is not None:
                sampler.load_state_dict(stood)
        self._epoch_start = self._sampler_states()
        self._held_out_draws = state["meta_draws"]
        for part, sampler in self._held_out_samplers.items():
            sampler.load_state_dict(state["meta_samplers"][part])
