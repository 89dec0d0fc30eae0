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
from harness.engine.compiling import compiled
from harness.engine.history import History, class_dtype
from harness.engine.schedules import learning_rate
from harness.engine.seeding import seed_for
from harness.errors import RunFailed, RunSkipped
from harness.progress import Reporter
from harness.recipes import Augment, StageRecipe

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
    """

    def __init__(
        self, job: StageJob, split: Split, images: Mapping[str, AnyImages], device: torch.device, folder: Path
    ) -> None:
        job = dataclasses.replace(job, recipe=job.recipe.for_images(len(images["train"].labels)))
        self.job, self.split, self.device, self.folder = job, split, device, folder
        recipe = job.recipe
        self.data = make_parts(images, split, device, recipe.augment, recipe.batch_size)
        self._build_model()
        labels = self.data["train"].host_labels
        self.sampler = self.method.sampler(labels, job.stage)
        self.meta_samplers = {
            part: ClassAwareSampler(self.data[part].host_labels, split.num_classes, k=1) for part in ("train", "val")
        }
        self.meta_draws = 0
        self.generator = torch.Generator(device).manual_seed(seed_for(job.seed, job.stage, "method"))
        self.history, self.costs = History(), Costs()
        self._saved_at = self._ticked_at = time.monotonic()
        self._last_logits: Tensor | None = None
        self._kept_features: dict[tuple[str, bool], list[Tensor]] = {}  # by part, and whether mirrored
        self._train_features: Tensor | None = None
        self.epoch, self.step = 0, 0
        self.losses: list[Tensor] = []  # of the running epoch; on the device, so that no step waits for its loss
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
        )
        self._epoch_start_sampler = self.sampler.state_dict()

    def _build_model(self) -> None:
        """Weights depend on the seed and the stage only, so methods with one seed start from the same backbone."""
        job = self.job
        torch.manual_seed(seed_for(job.seed, "backbone"))
        backbone, feature_dim = create_backbone(job.backbone, tuple(self.split.image_shape))  # type: ignore[arg-type]
        self.method = job.method(
            Task(self.split.num_classes, feature_dim, torch.tensor(self.split.class_counts, device=self.device)),
            job.params,
        )
        reason = self.method.skip()
        if reason:
            raise RunSkipped(reason)
        torch.manual_seed(seed_for(job.seed, job.stage, "head"))
        self.model = Classifier(backbone, self.method.head(job.stage))
        if job.start:
            wanted = "" if self.method.continues_head() else "backbone."
            kept = {name: value for name, value in job.start.items() if name.startswith(wanted)}
            self.model.load_state_dict(self.model.state_dict() | kept)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.method.on_stage_start(self.model, job.stage)
        self._compiled = compiled(self.model.backbone)
        self._build_optimizer()
        torch.manual_seed(seed_for(job.seed, job.stage, "forward"))  # dropout and the like

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
            start_epoch(self.data["train"], plan, batches[self.step :])
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
        index = self.method.choose(plan.order[where], step)
        step.batch = Batch(train.batch(index, plan.augment[where]), train.labels[index], index)
        share, partner = plan.mixup[where][0], plan.partner[where]
        images = step.batch.images
        if self.job.recipe.mixup_alpha > 0:
            images = share * images + (1 - share) * images[partner]
        step.features = self._batch_features(images, index)
        logits = self.model.head(step.features)
        self.method.before_step(step)
        loss = self.method.loss(logits, step.batch.target, step)
        if self.job.recipe.mixup_alpha > 0:
            loss = share * loss + (1 - share) * self.method.loss(logits, step.batch.target[partner], step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.method.after_step(step)
        self.losses.append(loss.detach())

    def _extract(self, images: Tensor) -> Tensor:
        """Features in float32 at least; the backbone may run in bfloat16, head and loss never do."""
        low = self.job.precision == "bfloat16"
        no_grad = torch.no_grad() if self.frozen_backbone else contextlib.nullcontext()
        with no_grad, torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            features: Tensor = self._network(images)
        return features.float() if low else features

    def _network(self, images: Tensor) -> Tensor:
        """The backbone; a compiled one takes full batches only, the shape that nearly all of the time goes to."""
        if self._compiled is None or len(images) != self.job.recipe.batch_size:
            return self.model.backbone(images)  # type: ignore[no-any-return]
        return self._compiled(images)

    def _part_features(self, part: str, *, mirrored: bool = False) -> Iterable[Tensor]:
        """Features of a part's images as they are, in batches; of a backbone that never changes they are kept."""
        if (part, mirrored) in self._kept_features:
            return self._kept_features[part, mirrored]
        images = in_order(self.data[part], EVAL_BATCH[self.device.type])
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
            self._train_features = torch.cat(list(self._part_features("train")))
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
        losses = torch.stack(self.losses).float()
        bad = torch.nonzero(~torch.isfinite(losses)).flatten()
        if len(bad):
            step = int(bad[0]) + 1
            raise RunFailed(
                f"loss is {float(losses[bad[0]])} in epoch {self.epoch + 1}, step {step}",
                epoch=self.epoch + 1,
                step=step,
            )
        self.history.loss.append(float(losses.mean()))
        self.history.learning_rate.append(self.step_context.learning_rate)

    # ---- evaluation ---------------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        history, dtype = self.history, class_dtype(self.split.num_classes)
        self._last_logits = logits = self._predict("test")
        predictions = logits.argmax(1)
        confidence = logits.double().softmax(1).max(1).values
        targets = torch.from_numpy(self.split.test.targets())
        history.ece.append(round(expected_calibration_error(confidence, predictions == targets), 6))
        history.test.append(predictions.numpy().astype(dtype))
        history.val.append(self._predict("val").argmax(1).numpy().astype(dtype))
        history.epochs.append(min(self.epoch + 1, self.job.recipe.epochs))

    @torch.no_grad()
    def _predict(self, part: str) -> Tensor:
        """Logits as inference uses them, on the CPU in float32, shape (N, C)."""
        self.model.eval()
        logits = self._logits(part)
        if self.job.recipe.flip_average:
            logits = (logits + self._logits(part, mirrored=True)) / 2
        if not bool(torch.isfinite(logits).all()):
            raise RunFailed(
                f"logits on the {part} part are not finite after epoch {self.epoch + 1}", epoch=self.epoch + 1
            )
        return logits

    def _logits(self, part: str, *, mirrored: bool = False) -> Tensor:
        chunks = [
            self.method.inference(self.model.head(features), self.job.stage).float().cpu()
            for features in self._part_features(part, mirrored=mirrored)
        ]
        return torch.cat(chunks) if len(self.data[part]) else torch.empty(0, self.split.num_classes)

    # ---- files --------------------------------------------------------------------------------------------------

    @property
    def _state_file(self) -> Path:
        return self.folder / "resume.pt"

    def _maybe_checkpoint(self) -> None:
        """Saves the state when the last save is long ago (`LTBENCH_CHECKPOINT_SECONDS`, default 5)."""
        every = float(os.environ.get("LTBENCH_CHECKPOINT_SECONDS") or 5)
        if time.monotonic() - self._saved_at >= every:
            self._check_running_losses()
            self._tick("train_seconds" if self.losses else "")
            save_state(self._state_file, self._state(), self.job.run_key)
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
        if self.losses and not bool(torch.isfinite(torch.stack(self.losses)).all()):
            self._check_losses()

    def _state(self) -> dict[str, Any]:
        history = {
            key: [torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in values]
            for key, values in dataclasses.asdict(self.history).items()
        }
        return {
            "epoch": self.epoch,
            "step": self.step,
            "losses": [loss.cpu() for loss in self.losses],
            "history": history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "sampler": self._epoch_start_sampler,
            "meta_draws": self.meta_draws,
            "meta_samplers": {part: sampler.state_dict() for part, sampler in self.meta_samplers.items()},
            "generator": self.generator.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "costs": dataclasses.asdict(self.costs),
        }

    def _resume(self, reporter: Reporter) -> None:
        state = load_state(self._state_file, self.job.run_key)
        if state is None:
            return
        self.epoch, self.step = state["epoch"], state["step"]
        self.losses = [loss.to(self.device) for loss in state["losses"]]
        arrays: dict[str, Any] = {
            key: [v.numpy() if isinstance(v, Tensor) else v for v in values] for key, values in state["history"].items()
        }
        self.history, self.costs = History(**arrays), Costs(**state["costs"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.sampler.load_state_dict(state["sampler"])
        self._epoch_start_sampler = self.sampler.state_dict()
        self.meta_draws = state["meta_draws"]
        for part, sampler in self.meta_samplers.items():
            sampler.load_state_dict(state["meta_samplers"][part])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        reporter.note(f"{self.job.title}: resumed at epoch {self.epoch + 1}, step {self.step + 1}")

    def _finish(self) -> None:
        logits = self._predict("test") if self._last_logits is None else self._last_logits
        save_weights(self.folder / "weights.safetensors", self.model, self.job.run_key, self.method.state_dict())
        quantities = self.method.class_quantities(self.model).items()
        by_class = {name: values.detach().float().cpu().numpy() for name, values in quantities}
        self.history.save(self.folder / "predictions.npz", logits.numpy(), self.job.run_key, by_class)
        self._tick()
