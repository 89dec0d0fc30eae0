"""The only training loop. It calls the method's hooks; everything else of a run happens here, once."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.api import Batch
from harness.base.errors import RunFailed, UserError
from harness.base.progress import Reporter
from harness.engine import graph
from harness.engine.batches import Batches, StepPlans
from harness.engine.checkpoint import load_state, save_state, save_weights
from harness.engine.compiling import COMPILE
from harness.engine.device import DETERMINISTIC, default_generator, device_name, replays, switched_on
from harness.engine.evaluation import Evaluation
from harness.engine.graph import GRAPH, Graph, Steps, Watched, wanted
from harness.engine.job import Costs, StageJob
from harness.engine.network import Network
from harness.engine.ranks import ALONE, Ranks, saved_buffers
from harness.engine.seeding import seed_for
from harness.engine.shared_features import FOLDER
from harness.engine.state import State
from harness.feed.parts import closing, make_parts
from harness.feed.plans import EpochPlan
from harness.reading.dataset import AnyImages
from harness.records.history import History
from harness.spec.provenance import processor
from harness.splits.splits import Split

CHECKPOINT_STEPS = 10  # how often ranks agree on whether to save


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
        self.job, self.device, self.folder, self.ranks = job, device, folder, ranks
        share, recipe = -(-job.recipe.batch_size // ranks.world), job.recipe
        self.data = make_parts(images, split, device, recipe.augment, share, recipe.strong_augment)
        self.network = Network(job, split, self.data, device, ranks)
        self.network.share_features(folder.parent / FOLDER)
        self.model, self.method = self.network.model, self.network.method
        self.batches = Batches(job, split, self.data, self.method, device, ranks)
        self.evaluation = Evaluation(job, split, self.data, self.network, ranks)
        self.generator = torch.Generator(device).manual_seed(seed_for(job.seed, job.stage, *ranks.noise("method")))
        self.history, self.costs = History(), Costs()
        self._processor = device_name(device) if device.type == "cuda" else processor()
        self._saved_at = self._ticked_at = time.monotonic()
        self.epoch, self.step, self._rate = 0, 0, job.recipe.lr
        self._reporter = Reporter()
        self.losses: list[Tensor] = []  # of the running epoch; on the device, so that no step waits for its loss
        self.step_context = self._make_context()
        self.steps = self._make_steps()

    def _make_steps(self) -> Steps:
        network, method, alone = self.network, self.method, self.ranks.world == 1 and replays(self.device)
        average = network.average_weights.module
        parts = {"model": self.model, "optimizer": network.optimizer, "average": average, "method": vars(method)}
        generators = [self.generator, default_generator(self.device)]
        return Steps(
            self._step,
            State(parts, generators),
            self.step_context,
            self._new_graph() if wanted() != "off" else None,
            network if alone and not network.compiled else None,
            exact=switched_on(DETERMINISTIC),
            fell_back=self._fell_back,
        )

    def _new_graph(self) -> Callable[[], Graph] | None:
        """What makes a graph of a step, where there can be one."""
        reasons = {
            "it is not on a GPU": not replays(self.device),
            "several processes train it": self.ranks.world > 1,
            "its batches are cut into micro-batches": bool(self.job.spread.micro_batch),
            f"{COMPILE}=1 makes graphs of its own": self.network.compiled,
            "its images are read from files": not self.batches.resident,
            self.method.no_graph: bool(self.method.no_graph),
        }
        reason = next((reason for reason, holds in reasons.items() if holds), "")
        if reason and wanted() == "on":
            raise UserError(f"{GRAPH}=on: {self.job.title} cannot be replayed from a graph: {reason}")
        return None if reason else lambda: graph.CudaGraph(self.device, [self.generator])

    def _fell_back(self, line: str) -> None:
        """Writes down what was not trusted, and says it."""
        self.costs.fell_back.append(line)
        self._reporter.note(f"{self.job.title}: {line}")

    def _make_context(self) -> Watched:
        return Watched(
            stage=self.job.stage,
            epoch=0,
            epochs=self.job.recipe.epochs,
            step=0,
            learning_rate=self.network.rate,
            model=self.model,
            optimizer=self.network.optimizer,
            generator=self.generator,
            label_smoothing=self.job.recipe.label_smoothing,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its numbers must know."""
        counts = (line for line in self.costs.fell_back if line.startswith(graph.EXACT) or graph.TRUSTED in line)
        return (*self.batches.notes, *self.evaluation.notes, *(f"{self.job.stage}: {line}" for line in counts))

    # ---- training -----------------------------------------------------------------------------------------------

    def run(self, reporter: Reporter) -> None:
        """Trains to the end (from the resume state, if there is one) and writes weights and history."""
        with closing(self.data):
            self._run(reporter)

    def _run(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._resume(reporter)
        tuned, there = self.network.parameters
        if 0 < tuned < there:
            reporter.note(f"{self.job.title}: trains {tuned:,} of {there:,} parameters")
        self._tick()
        while self.epoch < self.job.recipe.epochs:
            self.train_epoch(reporter)
        if not self.history.epochs:  # a second stage of no epochs: post-hoc methods
            self.evaluation.add_to(self.history, self.epoch)
        self._finish()

    def train_epoch(self, reporter: Reporter) -> None:
        """Trains the next epoch, evaluates and saves where it is time to, and reports."""
        self._train_steps()
        self._check_losses()  # waits for the device, so that the time below is that of the work
        self._tick("train_seconds")
        if not self.network.fixed_features:
            self.ranks.average_buffers(self.model)
            if self.network.average_weights.module:
                self.ranks.average_buffers(self.network.average_weights.module)
        if self.job.recipe.is_evaluated(self.epoch + 1):
            self.evaluation.add_to(self.history, self.epoch)
            self._tick("eval_seconds")
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []
        self.batches.end_epoch()
        self._maybe_checkpoint()
        reporter.epoch(self.job.title, self.epoch, self.job.recipe.epochs, f"loss {self.history.loss[-1]:.3f}")

    def _train_steps(self) -> None:
        self.costs.ran_on(self._processor, self.epoch + 1)
        plan = self.batches.plan(self.epoch)
        batches = self.batches.positions(plan)
        self.batches.read_ahead(plan, batches[self.step :])
        self.network.train_mode()
        if self.network.shared:
            self.network.shared.begin_epoch(plan)
        while self.step < len(batches):
            where = batches[self.step]
            self._train_step(plan, where, len(batches))
            self.step += 1
            self.costs.images += len(plan.order[where])
            if self.step < len(batches):
                self._maybe_checkpoint()
        if self.network.shared:
            self.network.shared.end_epoch(len(batches))
        with self.network.average_weights.taking_over():
            self.method.on_epoch_end(self.step_context)

    def _train_step(self, plan: EpochPlan, where: slice, steps: int) -> None:
        step = self.step_context
        step.epoch, step.step = self.epoch, self.step
        self._rate = self.network.begin_step(self.epoch, self.step, steps, self.ranks.weight(where))
        step.learning_rate = self.network.rate
        self.losses.append(self.steps.take(self.batches.cut(plan, where)))
        self.costs.graph_steps += self.steps.replayed

    def _step(self, plans: StepPlans) -> Tensor:
        """All of a step that the device does, from the images of its plans to the method's hook. Returns its loss."""
        step, network = self.step_context, self.network
        weight = self.ranks.weight(slice(0, len(plans[0].order)))
        views = self.batches.views(plans, step)
        step.classes = self.batches.classes(plans)
        network.optimizer.zero_grad(set_to_none=True)
        parts, losses = network.parts(views[0]), []
        for part in parts:
            share = len(part.images) / len(views[0].images) * weight * self.ranks.world
            with network.joint.synchronised(part is parts[-1]):
                losses.append(self._backward((part, *views[1:]), share))
        network.update()
        self.method.after_step(step)
        network.average_weights.update()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _backward(self, views: tuple[Batch, ...], share: float) -> Tensor:
        """Adds the gradient of a part of the batch, times its share: gradients are averaged over ranks, not summed."""
        self.step_context.batch = self.network.batch = views[0]
        values = self.method.step_loss(self.network, views, self.step_context)
        loss = values.mean() if values.ndim else values
        loss = loss if share == 1 else loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _check_losses(self) -> None:
        """Ends the run at the first loss that is not finite; once an epoch, so that no step waits for the device."""
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
        self.history.learning_rate.append(self._rate)

    def _check_running_losses(self) -> None:
        """Keeps NaNs out of saved states; between epochs `_check_losses` has just done so."""
        if self.losses and not bool(torch.isfinite(self.ranks.sum(torch.stack(self.losses))).all()):
            self._check_losses()

    # ---- files --------------------------------------------------------------------------------------------------

    @property
    def _state_file(self) -> Path:
        return self.folder / "resume.pt"

    def _maybe_checkpoint(self) -> None:
        """Saves the state if the last save is `LTBENCH_CHECKPOINT_SECONDS` ago (default 5)."""
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
        """Adds the time since the last tick to the wall time, and to an activity if one is named."""
        now = time.monotonic()
        elapsed, self._ticked_at = now - self._ticked_at, now
        self.costs.wall_seconds += elapsed
        if activity:
            setattr(self.costs, activity, getattr(self.costs, activity) + elapsed)
        for activity, seconds in (self.network.shared.seconds_taken() if self.network.shared else {}).items():
            setattr(self.costs, activity, getattr(self.costs, activity) + seconds)
            self.costs.wall_seconds += seconds
            self.costs.shared_seconds += seconds

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
            "optimizer": self.network.optimizer.state_dict(),
            "average": self.network.average_weights.state_dict(),
            "method": self.method.state_dict(),
            **self.batches.state_dict(),
            "ranks": self.ranks.gathered(self._state_of_rank()),
            "costs": dataclasses.asdict(self.costs),
        }

    def _state_of_rank(self) -> dict[str, Any]:
        several, average = self.ranks.world > 1, self.network.average_weights.module
        buffers = saved_buffers(self.model) if several else {}  # statistics of this rank's images
        averaged = saved_buffers(average) if several and average else {}
        return {
            "buffers": {name: buffer.cpu() for name, buffer in buffers.items()},
            "average": {name: buffer.cpu() for name, buffer in averaged.items()},
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
        self.steps.give_up_as_before(self.costs.fell_back)
        self.model.load_state_dict(state["model"] | own["buffers"])
        self.network.optimizer.load_state_dict(state["optimizer"])
        self.network.average_weights.load_state_dict(state["average"] | own["average"])
        self.method.load_state_dict(state["method"])
        self.batches.load_state_dict(state)
        self.generator.set_state(own["generator"])
        torch.set_rng_state(own["rng"])
        if own["cuda_rng"] is not None:
            torch.cuda.set_rng_state(own["cuda_rng"], self.device)
        reporter.note(f"{self.job.title}: resumed at epoch {self.epoch + 1}, step {self.step + 1}")

    def _finish(self) -> None:
        logits = self.evaluation.final_logits(self.epoch)
        if logits is not None:
            with self.network.average_weights.in_place():
                self._write(logits)
        self._tick()
        self.ranks.wait()

    def _write(self, logits: Tensor) -> None:
        save_weights(
            self.folder / "weights.safetensors",
            self.model,
            self.job.run_key,
            self.method.state_dict(),
            self.network.as_pretrained,
        )
        quantities = self.method.class_quantities(self.model).items()
        by_class = {name: values.detach().float().cpu().numpy() for name, values in quantities}
        self.history.save(self.folder / "predictions.npz", logits.numpy(), self.job.run_key, by_class)
