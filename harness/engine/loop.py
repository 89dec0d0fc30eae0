"""The only training loop. It calls the method's hooks; everything else of a run happens here, once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.api import Batch, Classifier, Method, Stage, StepContext, Task
from harness.data.parts import closing, in_order, make_parts, plan_for, start_epoch
from harness.data.resident import EpochPlan
from harness.data.samplers import ClassAwareSampler
from harness.data.splits import Split
from harness.datasets.base import AnyImages
from harness.engine.backbones import create_backbone
from harness.engine.calibration import expected_calibration_error
from harness.engine.checkpoint import load_state, save_state, save_weights
from harness.engine.compiling import COMPILE, compiled
from harness.engine.history import History, class_dtype
from harness.engine.parallel import Mixed, forward_pass, with_synchronised_batchnorm
from harness.engine.ranks import ALONE, Ranks, saved_buffers
from harness.engine.schedules import learning_rate
from harness.engine.seeding import seed_for
from harness.errors import RunFailed, RunSkipped, UserError
from harness.progress import Reporter
from harness.recipes import Augment, StageRecipe
from harness.spread import ONE_PROCESS, Spread

CHECKPOINT_STEPS = 10  # how often ranks agree on whether to save
EVAL_BATCH = {"cpu": 128, "cuda": 2000}  # a small batch stays in a processor's cache; a GPU wants a large one


@dataclass(frozen=True)
class StageJob:
    """All that decides the outcome of one stage of one run."""

    stage: Stage
    method: type[Method]
    params: Any
    recipe: StageRecipe
    backbone: str
    precision: str
    seed: int
    run_key: str
    start: dict[str, Tensor] = field(default_factory=dict)  # weights of the first stage, for the second one
    spread: Spread = ONE_PROCESS

    @property
    def title(self) -> str:
        """For progress lines."""
        return f"{self.method.name} seed {self.seed} {self.stage}"


@dataclass
class Costs:
    """What a stage took, resumed runs added up."""

    wall_seconds: float = 0.0  # all of it, set-up and files included
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    images: int = 0  # training images seen


class StageRun:
    """One stage of one run: builds or resumes, trains, evaluates, and leaves its results in `folder`.

    Args:
        folder: where the resume state and the results go; the same folder resumes after a kill.
        ranks: this process among those that train the run together.
    """

    def __init__(
        self,
        job: StageJob,
        split: Split,
        images: Mapping[str, AnyImages],
        device: torch.device,
        folder: Path,
        ranks: Ranks = ALONE,
    ) -> None:
        job = dataclasses.replace(job, recipe=job.recipe.for_images(len(images["train"].labels)))
        self.job, self.split, self.device, self.folder, self.ranks = job, split, device, folder, ranks
        recipe = job.recipe
        share = -(-recipe.batch_size // ranks.world)
        self.data = make_parts(images, split, device, recipe.augment, share)
        self._build_model()
        labels = self.data["train"].host_labels
        self.sampler = self.method.sampler(labels, job.stage)
        self.meta_samplers = {
            part: ClassAwareSampler(self.data[part].host_labels, split.num_classes, k=1) for part in ("train", "val")
        }
        self.meta_draws = 0
        self.generator = torch.Generator(device).manual_seed(seed_for(job.seed, job.stage, *self._of_rank("method")))
        self.history, self.costs = History(), Costs()
        self._saved_at = self._ticked_at = time.monotonic()
        self._last_logits: Tensor | None = None
        self._kept_features: dict[tuple[str, bool], list[Tensor]] = {}  # by part, and whether mirrored
        self._train_features: Tensor | None = None
        self.epoch, self.step = 0, 0
        self.losses: list[Tensor] = []  # of the running epoch; on the device, so that no step waits for its loss
        self._weight = 1.0  # part of the running batch that is this rank's
        self.step_context = StepContext(
            stage=job.stage,
            epoch=0,
            epochs=recipe.epochs,
            step=0,
            learning_rate=recipe.lr,
            model=self.model,
            optimizer=self.optimizer,
            generator=self.generator,
            held_out=self._held_out,
            extract=self._extract,
            average=self._average,
        )
        self._epoch_start_sampler = self.sampler.state_dict()

    def _build_model(self) -> None:
        """Weights depend on the seed and the stage only, so methods with one seed start from the same backbone."""
        job = self.job
        torch.manual_seed(seed_for(job.seed, "backbone"))
        backbone, feature_dim = create_backbone(job.backbone, tuple(self.split.image_shape))  # type: ignore[arg-type]
        self.method = self._build_method(feature_dim)
        torch.manual_seed(seed_for(job.seed, job.stage, "head"))
        self.model = Classifier(backbone, self.method.head(job.stage))
        if job.start:
            wanted = "" if self.method.continues_head() else "backbone."
            kept = {name: value for name, value in job.start.items() if name.startswith(wanted)}
            self.model.load_state_dict(self.model.state_dict() | kept)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if job.spread.sync_bn:
            with_synchronised_batchnorm(self.model, self.device)
        self.method.on_stage_start(self.model, job.stage)
        self._compiled = compiled(self.model.backbone)
        self._build_optimizer()
        self._check_spread()
        self.joint = forward_pass(self.model, self._extract, self.frozen_backbone, self.ranks, self.device)
        torch.manual_seed(seed_for(job.seed, job.stage, *self._of_rank("forward")))  # dropout and the like

    def _build_method(self, feature_dim: int) -> Method:
        counts = torch.tensor(self.split.class_counts, device=self.device)
        method = self.job.method(Task(self.split.num_classes, feature_dim, counts), self.job.params)
        if reason := method.skip():
            raise RunSkipped(reason, agreed=True)
        return method

    def _check_spread(self) -> None:
        """What cannot be spread is refused before it costs anything."""
        spread = self.job.spread
        if spread.changes_numbers and self._compiled is not None:
            raise UserError(f"{COMPILE}=1: whole batches are compiled, not their shares; not with {spread.options}")
        whole = type(self.method).before_step is not Method.before_step and not self.frozen_backbone
        if spread.micro_batch and whole:
            raise UserError(
                f"--micro-batch: {self.method.name} needs the features of a whole batch; use more processes instead"
            )

    def _of_rank(self, name: str) -> list[str]:
        """The name of a source of noise that is another on each rank, and on the first as in one process."""
        return [name, str(self.ranks.rank)] if self.ranks.rank else [name]

    def _build_optimizer(self) -> None:
        recipe = self.job.recipe
        groups = self.method.param_groups(self.model, self.job.stage)
        self.lr_scales = [group.pop("lr_scale", 1.0) for group in groups]
        tuned = {parameter for group in groups for parameter in group["params"]}
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter in tuned)
        self.frozen_backbone = not any(parameter in tuned for parameter in self.model.backbone.parameters())
        self.fixed_features = self.frozen_backbone and recipe.frozen_bn == "eval"
        self.optimizer = torch.optim.SGD(
            groups,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            fused=self.device.type == "cuda",  # one kernel for all parameters
        )

    # ---- training -----------------------------------------------------------------------------------------------

    def run(self, reporter: Reporter) -> None:
        """Trains to the end (from the resume state, if there is one) and writes weights and history."""
        with closing(self.data):
            self._run(reporter)

    def _run(self, reporter: Reporter) -> None:
        self._resume(reporter)
        self._tick()
        while self.epoch < self.job.recipe.epochs:
            self._train_epoch()
            self._check_losses()  # waits for the device, so that the time below is that of the work
            self._tick("train_seconds")
            if not self.fixed_features:
                self.ranks.average_buffers(self.model)
            if self._evaluated_now():
                self._evaluate()
                self._tick("eval_seconds")
            self.epoch, self.step, self.losses = self.epoch + 1, 0, []
            self._epoch_start_sampler = self.sampler.state_dict()
            self._maybe_checkpoint()
            reporter.epoch(self.job.title, self.epoch, self.job.recipe.epochs, f"loss {self.history.loss[-1]:.3f}")
        if not self.history.epochs:  # a second stage of no epochs: post-hoc methods
            self._evaluate()
        self._finish()

    def _evaluated_now(self) -> bool:
        done = self.epoch + 1
        return done == self.job.recipe.epochs or done % self.job.recipe.eval_every == 0

    def _train_epoch(self) -> None:
        plan = self._plan()
        size = self.job.recipe.batch_size
        count = len(plan.order) // size * size if self.job.recipe.drop_last else len(plan.order)
        steps = max(1, -(-count // size))
        batches = [slice(step * size, min((step + 1) * size, max(count, size))) for step in range(steps)]
        if type(self.method).choose is Method.choose:  # the plan stands; nobody chooses other images step by step
            start_epoch(self.data["train"], plan, [self.ranks.share(where) for where in batches[self.step :]])
        self._set_modes()
        while self.step < steps:
            where = batches[self.step]
            self._train_step(plan, where, steps)
            self.step += 1
            self.costs.images += len(plan.order[where])
            if self.step < steps:
                self._maybe_checkpoint()
        self.method.on_epoch_end(self.step_context)

    def _plan(self) -> EpochPlan:
        """The epoch's input, from a generator of its own: a resumed epoch draws the same plan again."""
        recipe = self.job.recipe
        rng = np.random.default_rng(seed_for(self.job.seed, self.job.stage, "epoch", str(self.epoch)))
        order = self.sampler.order(rng)
        return plan_for(
            self.data["train"],
            order,
            recipe.batch_size,
            rng,
            augment=recipe.augment,
            image_shape=self.split.image_shape,
            mixup_alpha=recipe.mixup_alpha,
            device=self.device,
        )

    def _set_modes(self) -> None:
        self.model.train()
        if self.fixed_features:
            self.model.backbone.eval()

    def _train_step(self, plan: EpochPlan, where: slice, steps: int) -> None:
        if self._compiled is not None:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        step, train = self.step_context, self.data["train"]
        step.epoch, step.step, step.learning_rate = self.epoch, self.step, self._set_learning_rate(steps)
        mine, self._weight = self.ranks.share(where), self.ranks.weight(where)
        index = self.method.choose(plan.order[mine], step)
        step.batch = Batch(train.batch(index, plan.augment[mine]), train.labels[index], index)
        mixed = self._weighed(self._mixed(step.batch, plan, where, mine), step)
        self.optimizer.zero_grad(set_to_none=True)
        parts = [mixed] if self.frozen_backbone else mixed.parts(self.job.spread.micro_batch)
        losses = [self._backward(step, part, len(index)) for part in parts]
        self.optimizer.step()
        self.method.after_step(step)
        self.losses.append(losses[0] if len(losses) == 1 else torch.stack(losses).sum())

    def _mixed(self, batch: Batch, plan: EpochPlan, where: slice, mine: slice) -> Mixed:
        """The batch as the network sees it; with mixup, with the images and classes of the partners."""
        if self.job.recipe.mixup_alpha == 0:
            return Mixed(batch.images, batch.target, batch.index)
        share, partner = plan.mixup[mine][0], plan.partner[mine]
        if self.ranks.world == 1:
            others, target = batch.images[partner], batch.target[partner]
        else:  # a partner may be another rank's image
            position = where.start + partner
            index = plan.order[position]
            others, target = (
                self.data["train"].batch(index, plan.augment.at(position)),
                self.data["train"].labels[index],
            )
        return Mixed(share * batch.images + (1 - share) * others, batch.target, batch.index, share, target)

    def _weighed(self, mixed: Mixed, step: StepContext) -> Mixed:
        """With what each image counts, where a batch is shared out and its images do not count the same.

        Once a step and before its parts, since the ranks meet here and may have different numbers of parts.
        """
        if self.ranks.world == 1 and not self.job.spread.micro_batch:
            return mixed
        found = (self.method.image_weights(classes, step) for classes in mixed.classes)
        weights = [weight for weight in found if weight is not None]
        if not weights:
            return mixed
        mine = torch.stack(weights).double() * (self._weight > 0)  # an image that is done over counts nothing
        return dataclasses.replace(mixed, counts=mine / self.ranks.sum(mine.sum(1, keepdim=True)))

    def _backward(self, step: StepContext, part: Mixed, count: int) -> Tensor:
        """Adds the gradient of a part of the batch of `count` images; the part's share of the batch's loss."""
        with self.joint.synchronised(part.last):
            if self.frozen_backbone:
                pieces = part.parts(self.job.spread.micro_batch)
                features = [self._batch_features(piece.images, piece.index) for piece in pieces]
                step.features = features[0] if len(features) == 1 else torch.cat(features)
                logits = self.joint.head(step.features)
            else:
                step.features, logits = self.joint(part.images)
            self.method.before_step(step)
            even = len(part.images) / count * self._weight
            losses = [
                self._scaled(self.method.loss(logits, classes, step), part.counted(which, even))
                for which, classes in enumerate(part.classes)
            ]
            loss = losses[0] if part.other is None else part.share * losses[0] + (1 - part.share) * losses[1]
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _scaled(self, loss: Tensor, counted: Tensor | float) -> Tensor:
        """A part's loss times what it counts of the batch's; gradients are averaged over ranks, not added up."""
        factor = counted * self.ranks.world
        return loss if isinstance(factor, float) and factor == 1 else loss * factor

    def _average(self, values: Tensor) -> Tensor:
        """Of a mean over this rank's share of the batch the mean over the batch."""
        return values if self.ranks.world == 1 else self.ranks.sum(values * self._weight)

    def _extract(self, images: Tensor) -> Tensor:
        """Features in float32 at least; the backbone may run in bfloat16, head and loss never do."""
        low = self.job.precision == "bfloat16"
        no_grad = torch.no_grad() if self.frozen_backbone else contextlib.nullcontext()
        with no_grad, torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            features: Tensor = self._network(images)
        return features.float() if low else features

    def _network(self, images: Tensor) -> Tensor:
        """The backbone; a compiled one takes full batches only, the shape that nearly all of the time goes to."""
        if self._compiled is not None and len(images) == self.job.recipe.batch_size:
            return self._compiled(images)
        try:
            return self.model.backbone(images)  # type: ignore[no-any-return]
        except ValueError as error:
            if "more than 1 value per channel" in str(error) and self.job.spread.changes_numbers:
                raise UserError(
                    f"{self.job.spread.options}: BatchNorm got a single image, a share of a batch of epoch "
                    f"{self.epoch + 1}; take fewer processes, or larger parts"
                ) from None
            raise

    def _part_features(self, part: str, which: range, *, mirrored: bool = False) -> Iterable[Tensor]:
        """Features of images of a part as they are, in batches; of a backbone that never changes they are kept."""
        if (part, mirrored) in self._kept_features:
            return self._kept_features[part, mirrored]
        images = in_order(self.data[part], EVAL_BATCH[self.device.type], which)
        features = (self._extract(batch.flip(-1) if mirrored else batch) for batch in images)
        if not self.fixed_features:
            return features
        self._kept_features[part, mirrored] = [
            some.clone() for some in features
        ]  # a graph writes into its memory again
        return self._kept_features[part, mirrored]

    def _batch_features(self, images: Tensor, index: Tensor) -> Tensor:
        """Features of a training batch; where they are the same in every epoch they are computed once."""
        recipe = self.job.recipe
        if not self.fixed_features or recipe.augment != Augment() or recipe.mixup_alpha > 0:
            return self._extract(images)
        if self._train_features is None:
            self._train_features = torch.cat(list(self._part_features("train", range(len(self.data["train"])))))
        return self._train_features[index]

    def _set_learning_rate(self, steps: int) -> float:
        recipe = self.job.recipe
        rate = learning_rate(
            recipe.schedule,
            recipe.lr,
            epoch=self.epoch,
            epochs=recipe.epochs,
            step=self.step,
            steps=steps,
            warmup=recipe.warmup_epochs,
        )
        for group, scale in zip(self.optimizer.param_groups, self.lr_scales, strict=True):
            group["lr"] = rate * scale
        return rate

    def _held_out(self, size: int, source: str = "train") -> Batch:
        """A class-balanced batch with draws of its own, augmented like the training images."""
        part, augment = self.data[source], self.job.recipe.augment
        rng = np.random.default_rng(seed_for(self.job.seed, self.job.stage, "held_out", str(self.meta_draws)))
        self.meta_draws += 1
        order = self.meta_samplers[source].draw(size, rng)
        plan = plan_for(
            part,
            order,
            size,
            rng,
            augment=augment,
            image_shape=self.split.image_shape,
            mixup_alpha=0.0,
            device=self.device,
        )
        return Batch(part.batch(plan.order, plan.augment), part.labels[plan.order], plan.order)

    def _check_losses(self) -> None:
        """Once an epoch, so that no step waits for the device: the first loss that is not finite ends the run."""
        losses = self.ranks.sum(torch.stack(self.losses).float()) / self.ranks.world
        bad = torch.nonzero(~torch.isfinite(losses)).flatten()
        if len(bad):
            step = int(bad[0]) + 1
            raise RunFailed(
                f"loss is {float(losses[bad[0]])} in epoch {self.epoch + 1}, step {step}",
                epoch=self.epoch + 1,
                step=step,
                agreed=True,
            )
        self.history.loss.append(float(losses.mean()))
        self.history.learning_rate.append(self.step_context.learning_rate)

    # ---- evaluation ---------------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        history, dtype = self.history, class_dtype(self.split.num_classes)
        logits, val = self._predict("test"), self._predict("val")
        history.epochs.append(min(self.epoch + 1, self.job.recipe.epochs))
        if logits is None or val is None:  # rank 0 has them
            return
        self._last_logits = logits
        predictions = logits.argmax(1)
        confidence = logits.double().softmax(1).max(1).values
        targets = torch.from_numpy(self.split.test.targets())
        history.ece.append(round(expected_calibration_error(confidence, predictions == targets), 6))
        history.test.append(predictions.numpy().astype(dtype))
        history.val.append(val.argmax(1).numpy().astype(dtype))

    @torch.no_grad()
    def _predict(self, part: str) -> Tensor | None:
        """Logits as inference uses them, on the CPU in float32, shape (N, C); on rank 0."""
        self.model.eval()
        logits = self._logits(part)
        if self.job.recipe.flip_average:
            logits = (logits + self._logits(part, mirrored=True)) / 2
        if not all(self.ranks.told(self.ranks.gathered(bool(torch.isfinite(logits).all())))):
            raise RunFailed(
                f"logits on the {part} part are not finite after epoch {self.epoch + 1}",
                epoch=self.epoch + 1,
                agreed=True,
            )
        return self.ranks.rows(logits)

    def _logits(self, part: str, *, mirrored: bool = False) -> Tensor:
        """Of this rank's images."""
        which = self.ranks.chunk(len(self.data[part]))
        chunks = [
            self.method.inference(self.model.head(features), self.job.stage).float().cpu()
            for features in self._part_features(part, which, mirrored=mirrored)
        ]
        return torch.cat(chunks) if len(which) else torch.empty(0, self.split.num_classes)

    # ---- files --------------------------------------------------------------------------------------------------

    @property
    def _state_file(self) -> Path:
        return self.folder / "resume.pt"

    def _maybe_checkpoint(self) -> None:
        """Saves the state when the last save is long ago (`LTBENCH_CHECKPOINT_SECONDS`, default 5)."""
        if self.ranks.world > 1 and self.step % CHECKPOINT_STEPS:
            return
        every = float(os.environ.get("LTBENCH_CHECKPOINT_SECONDS") or 5)
        if self.ranks.told(time.monotonic() - self._saved_at >= every):
            self._check_running_losses()
            self._tick("train_seconds" if self.losses else "")
            state = self._state()
            if self.ranks.first:
                save_state(self._state_file, state, self.job.run_key)
            self._saved_at = time.monotonic()
            self._tick()

    def _tick(self, activity: str = "") -> None:
        """Books the time since the last tick: as wall time, and to an activity where there is one."""
        now = time.monotonic()
        elapsed, self._ticked_at = now - self._ticked_at, now
        self.costs.wall_seconds += elapsed
        if activity:
            setattr(self.costs, activity, getattr(self.costs, activity) + elapsed)

    def _check_running_losses(self) -> None:
        """A state with a NaN in it must never be saved; without a running epoch its end has checked already."""
        if self.losses and not bool(torch.isfinite(self.ranks.sum(torch.stack(self.losses))).all()):
            self._check_losses()

    def _state(self) -> dict[str, Any]:
        history = {
            key: [torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in values]
            for key, values in dataclasses.asdict(self.history).items()
        }
        return {
            "epoch": self.epoch,
            "step": self.step,
            "history": history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "sampler": self._epoch_start_sampler,
            "meta_draws": self.meta_draws,
            "meta_samplers": {part: sampler.state_dict() for part, sampler in self.meta_samplers.items()},
            "ranks": self.ranks.gathered(self._state_of_rank()),
            "costs": dataclasses.asdict(self.costs),
        }

    def _state_of_rank(self) -> dict[str, Any]:
        buffers = saved_buffers(self.model) if self.ranks.world > 1 else {}  # statistics of this rank's images
        return {
            "buffers": {name: buffer.cpu() for name, buffer in buffers.items()},
            "losses": [loss.cpu() for loss in self.losses],
            "generator": self.generator.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def _resume(self, reporter: Reporter) -> None:
        state = self.ranks.told(load_state(self._state_file, self.job.run_key) if self.ranks.first else None)
        if state is None:
            return
        own = state["ranks"][self.ranks.rank]  # the run key says how many there are
        self.epoch, self.step = state["epoch"], state["step"]
        self.losses = [loss.to(self.device) for loss in own["losses"]]
        arrays: dict[str, Any] = {
            key: [v.numpy() if isinstance(v, Tensor) else v for v in values] for key, values in state["history"].items()
        }
        self.history, self.costs = History(**arrays), Costs(**state["costs"])
        self.model.load_state_dict(state["model"] | own["buffers"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.sampler.load_state_dict(state["sampler"])
        self._epoch_start_sampler = self.sampler.state_dict()
        self.meta_draws = state["meta_draws"]
        for part, sampler in self.meta_samplers.items():
            sampler.load_state_dict(state["meta_samplers"][part])
        self.generator.set_state(own["generator"])
        torch.set_rng_state(own["rng"])
        if own["cuda_rng"] is not None:
            torch.cuda.set_rng_state(own["cuda_rng"], self.device)
        reporter.note(f"{self.job.title}: resumed at epoch {self.epoch + 1}, step {self.step + 1}")

    def _finish(self) -> None:
        resumed_at_the_end = self.ranks.told(self._last_logits is None)
        logits = self._predict("test") if resumed_at_the_end else self._last_logits
        if logits is not None:
            self._write(logits)
        self._tick()
        self.ranks.wait()

    def _write(self, logits: Tensor) -> None:
        save_weights(self.folder / "weights.safetensors", self.model, self.job.run_key, self.method.state_dict())
        quantities = self.method.class_quantities(self.model).items()
        by_class = {name: values.detach().float().cpu().numpy() for name, values in quantities}
        self.history.save(self.folder / "predictions.npz", logits.numpy(), self.job.run_key, by_class)
