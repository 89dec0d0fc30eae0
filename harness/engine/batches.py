"""The batches that a stage trains on: an epoch's plan, its batches with mixup, and those of further views."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.api import Batch, Method, StepContext, View
from harness.base.errors import RunFailed
from harness.engine.job import StageJob
from harness.engine.ranks import Ranks
from harness.engine.seeding import seed_for
from harness.feed.augment import check_channels, pasted
from harness.feed.parts import LoadedPart
from harness.feed.plans import EpochPlan, joined, plan_epoch
from harness.feed.resident import ResidentPart
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split
from harness.toolbox.samplers import ClassAwareSampler, Order, Sampler

StepPlans = tuple[EpochPlan, ...]  # of one step, for each view


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
        self._other_plans = list[EpochPlan]()  # of each further view; of a balanced one, a batch after the other
        self._samplers = [first.sampler, *map(self._sampler_of, self._other_views)]
        for sampler in filter(None, self._samplers):
            sampler.epochs = job.recipe.epochs
        self._epoch_start = self._sampler_states()
        self._joined = 0  # positions of an epoch whose last image joined the batch before it

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the run's numbers must know of its batches."""
        if not self._joined:
            return ()
        size = self._job.recipe.batch_size + 1
        return (
            f"{self._job.stage}: the last batch of an epoch has {size} images; one of {self._joined} was left over",
        )

    def _sampler_of(self, view: View) -> Sampler | None:
        if view.augment == "strong" and self._job.recipe.strong_augment:
            check_channels(self._job.recipe.strong_augment, self._split.image_shape[2])
        if view.balanced:
            return ClassAwareSampler(self._data[view.part].host_labels, self._split.num_classes, k=1)
        return view.sampler

    def _sampler_states(self) -> list[Any]:
        return [sampler and sampler.state_dict() for sampler in self._samplers]

    # ---- epochs -------------------------------------------------------------------------------------------------

    def plan(self, epoch: int) -> EpochPlan:
        """The epoch's input, from a generator of its own: a resumed epoch draws the same plan again."""
        recipe = self._job.recipe
        rng = np.random.default_rng(seed_for(self._job.seed, self._job.stage, "epoch", str(epoch)))
        assert self._samplers[0] is not None
        order = self._samplers[0].order(rng)
        plan = self._plan(self._train, order, recipe.batch_size, rng, recipe.mixup_alpha, recipe.cutmix_alpha)
        steps = len(self.positions(plan))
        orders: dict[Sampler | None, Order] = {None: order, self._samplers[0]: order}
        self._other_plans = [
            self._balanced_plans(view, sampler, epoch, steps)
            if view.balanced and isinstance(sampler, ClassAwareSampler)
            else self._plan_view(view, sampler, orders, epoch, number)
            for number, (view, sampler) in enumerate(zip(self._other_views, self._samplers[1:], strict=True), start=2)
        ]
        return plan

    def _plan_view(
        self, view: View, sampler: Sampler | None, orders: dict[Sampler | None, Order], epoch: int, number: int
    ) -> EpochPlan:
        """Another view's, from a generator of its own too; `orders` has what samplers of earlier views drew."""
        recipe, names = self._job.recipe, (self._job.stage, "epoch", str(epoch), "view", str(number))
        rng = np.random.default_rng(seed_for(self._job.seed, *names))
        if sampler is not None and sampler not in orders:
            orders[sampler] = sampler.order(rng)
        augments = {"recipe": recipe.augment, "strong": recipe.strong_augment or recipe.augment, "none": Augment()}
        plan = self._plan(self._train, orders[sampler], recipe.batch_size, rng, augment=augments[view.augment])
        strong = dataclasses.replace(plan.augment, strong=view.augment == "strong")
        return dataclasses.replace(plan, augment=strong)

    def _balanced_plans(self, view: View, sampler: ClassAwareSampler, epoch: int, steps: int) -> EpochPlan:
        """A class-balanced batch for each step, augmented like the training images, with draws of its own.

        They are copied to the device together, once an epoch.
        """
        plans = []
        for number in range(epoch * steps, (epoch + 1) * steps):
            rng = np.random.default_rng(seed_for(self._job.seed, self._job.stage, "held_out", str(number)))
            order = sampler.draw(view.balanced, rng)
            plans.append(self._plan(self._data[view.part], order, view.balanced, rng, on_host=True))
        return joined(plans).to(self._device)

    def positions(self, plan: EpochPlan) -> list[slice]:
        """Where in the plan each batch stands."""
        sizes = self._job.recipe.batches(len(plan.order))
        self._joined = len(plan.order) if sizes[-1] > self._job.recipe.batch_size else self._joined
        return [slice(end - size, end) for size, end in zip(sizes, itertools.accumulate(sizes), strict=True)]

    def read_ahead(self, plan: EpochPlan, batches: Sequence[slice]) -> None:
        """Tells the training part which batches it will be asked for."""
        if type(self._method).choose is Method.choose:  # the plan stands; nobody chooses other images step by step
            others = [
                (other.order, None if view.augment == "none" else other.augment)
                for view, other in zip(self._other_views, self._other_plans, strict=True)
                if not view.balanced
            ]
            self._train.start_epoch(plan, [self._ranks.share(where) for where in batches], *others)

    def end_epoch(self) -> None:
        """Notes where the samplers stand: a resumed run draws the next plan from there."""
        self._epoch_start = self._sampler_states()

    def _plan(
        self,
        part: LoadedPart,
        order: Order,
        batch_size: int,
        rng: np.random.Generator,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        augment: Augment | None = None,
        *,
        on_host: bool = False,
    ) -> EpochPlan:
        return plan_epoch(
            order,
            batch_size,
            rng,
            augment=augment or self._job.recipe.augment,
            image_shape=self._split.image_shape,
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            device=torch.device("cpu") if on_host else self._device,
            from_files=part.seeded,
            drop_last=self._job.recipe.drop_last,
        )

    # ---- batches ------------------------------------------------------------------------------------------------

    def cut(self, plan: EpochPlan, where: slice) -> StepPlans:
        """What is planned for the step at these positions: of each view a batch, of all ranks."""
        number = where.start // self._job.recipe.batch_size
        others = (
            other[number * view.balanced : (number + 1) * view.balanced] if view.balanced else other[where]
            for view, other in zip(self._other_views, self._other_plans, strict=True)
        )
        return (plan[where], *others)

    def views(self, plans: StepPlans, step: StepContext) -> tuple[Batch, ...]:
        """This rank's share of the planned batches, one for each view."""
        plan, *other_plans = plans
        mine = self._ranks.share(slice(0, len(plan.order)))
        index = self._method.choose(plan.order[mine], step)
        first = Batch(self._train.batch(index, plan.augment[mine]), self._train.labels[index], index)
        others = [
            self._balanced(view, other) if view.balanced else self._other(view, other, mine, index)
            for view, other in zip(self._other_views, other_plans, strict=True)
        ]
        return (self._with_partners(first, plan, mine), *others)

    def classes(self, plans: StepPlans) -> Tensor | None:
        """Those of the whole planned batch, where a step sees a piece of it; they need no talk between the ranks."""
        whole = self._ranks.world == 1 and not self._job.spread.micro_batch
        return None if whole else self._train.labels[plans[0].order]

    @property
    def resident(self) -> bool:
        """Whether all images that steps see lie on the device."""
        parts = {"train", *(view.part for view in self._other_views if view.balanced)}
        return all(isinstance(self._data[part], ResidentPart) for part in parts)

    def _other(self, view: View, plan: EpochPlan, mine: slice, first: Tensor) -> Batch:
        index = first if view.sampler is None else plan.order[mine]
        images = self._train.batch(index, None if view.augment == "none" else plan.augment[mine])
        return Batch(images, self._train.labels[index], index)

    def _balanced(self, view: View, plan: EpochPlan) -> Batch:
        part = self._data[view.part]
        return Batch(part.batch(plan.order, plan.augment), part.labels[plan.order], plan.order)

    def _with_partners(self, batch: Batch, plan: EpochPlan, mine: slice) -> Batch:
        """Mixed with its partners, where the recipe has mixup or CutMix."""
        if self._job.recipe.mixup_alpha == 0 and plan.cut is None:
            return batch
        share, partner = plan.mixup[mine][0], plan.partner[mine]
        if self._ranks.world == 1:
            others, target = batch.images[partner], batch.target[partner]
        else:  # a partner may be another rank's image
            index = plan.order[partner]
            others, target = self._train.batch(index, plan.augment.at(partner)), self._train.labels[index]
        images = share * batch.images + (1 - share) * others
        if plan.cut is not None:
            images = pasted(batch.images, others, plan.cut[mine][0], images)
        return Batch(images, batch.target, batch.index, target, share)

    # ---- resuming -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the samplers stood when the running epoch began."""
        return {"samplers": self._epoch_start, "joined": self._joined}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self._joined = state["joined"]
        for sampler, stood in zip(self._samplers, state["samplers"], strict=True):
            if sampler is not None:
                sampler.load_state_dict(stood)
        self._epoch_start = self._sampler_states()
