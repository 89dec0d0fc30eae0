"""Steps that are replayed from a graph, on a machine without a GPU: a tape stands in for the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Classifier, Method, Stage, StepContext
from harness.base.errors import RunFailed, UserError
from harness.engine import graph, loop
from harness.engine.checkpoint import save_state
from harness.engine.graph import CHECKS, GRAPH, WARM_UP
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.engine.state import Saved, State
from harness.reading.dataset import Images
from harness.spec.registry import get_method
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split
from tests.conformance.suite import SOUND
from tests.conformance.tape import Tape, assert_same, holds_in_a_graph, train, without_opt_out
from tests.engine import toys
from tests.engine.test_fake_cuda import EPOCHS, job

ImagesByPart = dict[str, Images]
Trained = Callable[..., StageRun]
OPT_OUTS = 3  # methods that may have no graph


@pytest.fixture
def trained(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Trains epochs of a job as on a GPU, eagerly or from a graph."""

    def trained(stage_job: StageJob, mode: str, epochs: Sequence[int] = (EPOCHS - 1,), made: Any = Tape) -> StageRun:
        return train(stage_job, (tiny_split, tiny_images), tmp_path, monkeypatch, mode, epochs, made)

    return trained


def test_an_opt_out_is_refused_where_the_graph_would_work(trained: Trained) -> None:
    shy = type("Shy", (get_method("ce"),), {"no_graph": "it is shy"})
    assert trained(toys.job(shy), "auto").costs.graph_steps == 0
    assert holds_in_a_graph(trained(without_opt_out(toys.job(shy)), "auto", (0, 1)))
    assert not holds_in_a_graph(trained(without_opt_out(toys.job(Baked)), "auto", (0, 1)))


def test_few_methods_opt_out() -> None:
    assert sum(bool(get_method(name).no_graph) for name in SOUND) <= OPT_OUTS


@pytest.mark.parametrize(
    ("name", "stage", "params"),
    [
        ("balms", "finetune", {"meta_source": "val", "meta_batch_size": 32}),
        ("balms", "finetune", {"reweight": True, "meta_batch_size": 32}),
        ("cdb", "train", {"source": "val", "dynamic": "paper"}),
        ("cmo", "train", {"skip_first": 0, "skip_last": 0, "loss": "ldam_drw"}),
        ("ride", "finetune", {"assign": True}),
        ("tde", "train", {"follow_rate": True}),
    ],
)
def test_so_it_does_with_other_params(name: str, stage: Stage, params: dict[str, Any], trained: Trained) -> None:
    eager, graphed = (trained(job(name, stage, batch_size=9, **params), mode, (1, 4)) for mode in ("off", "auto"))
    assert_same(graphed, eager)
    assert graphed.costs.fell_back == []
    assert graphed.costs.graph_steps > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": Augment(1, True, auto_augment="cifar10", cutout=4), "mixup_alpha": 0.2, "cutmix_alpha": 1.0},
        {"augment": Augment(0, True, resized_crop=True, color_jitter=0.4, rand_augment=5), "ema": 0.9},
        {"schedule": "cosine", "warmup_epochs": 2, "clip_grad": 1.0, "momentum": 0.0},
    ],
)
def test_so_it_does_with_other_recipes(changes: dict[str, Any], trained: Trained) -> None:
    """Rates that change in every step among them: a graph reads them from the device."""
    stage_job = toys.job(get_method("ce"), batch_size=9, **changes)
    eager, graphed = (trained(stage_job, mode, (0, 1)) for mode in ("off", "auto"))
    assert_same(graphed, eager)
    assert graphed.costs.fell_back == []
    assert graphed.costs.graph_steps > 0


@pytest.mark.parametrize(("name", "from_graphs"), [("ldam_drw", 2 + 7 + 4), ("bbn", 2 + 6 + 6), ("cdb", 2 + 6 + 7)])
def test_what_changes_between_epochs_makes_a_new_graph(name: str, from_graphs: int, trained: Trained) -> None:
    """A loss that changes once, one that changes every epoch, and weights that do, in place. Epochs have seven batches
    of nine images and one of seven, whose graph is not trusted within these three epochs. In epoch 4 one is checked."""
    stage_job = job(name, "train", batch_size=9)
    eager, graphed = (trained(stage_job, mode, (0, EPOCHS - 2, EPOCHS - 1)) for mode in ("off", "auto"))
    assert_same(graphed, eager)
    assert graphed.costs.fell_back == []
    assert graphed.costs.graph_steps == from_graphs


def test_all_steps_but_the_checked_ones_come_from_graphs(trained: Trained) -> None:
    """Two sizes of batch, so two graphs; each is checked before it is trusted."""
    run = trained(job("ce", "train", batch_size=16), "auto", range(5))
    again = 2 + 1  # in epochs 2 and 4; the last of the second size's first checks was in epoch 2
    assert run.costs.graph_steps == 5 * 5 - WARM_UP - 2 * CHECKS - again


# ---- what a graph gets wrong is found out ----------------------------------------------------------------------------


class WrongGradient(Tape):
    """Doubles a gradient on its way to the optimiser, from a given replay on."""

    wrong_from = 0
    replays = 0

    def replay(self) -> Tensor:
        self.replays += 1
        if self.replays <= self.wrong_from:
            return super().replay()
        steps, self._done = self._done, []
        for func, args, kwargs, found in steps:
            if func.overloadpacket is torch.ops.aten._fused_sgd_:
                self._done.append((torch.ops.aten.mul_.Scalar, (args[1][3], 2.0), {}, [args[1][3]]))
            self._done.append((func, args, kwargs, found))
        loss = super().replay()
        self._done = steps
        return loss


class Refusing(Tape):
    """As CUDA does where a step waits for it."""

    def capture(self, step: Callable[[], Tensor]) -> None:
        with self:
            step()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nSearch for it")


class Forgetting(Method):
    """Keeps a sum in a tensor that each step makes anew: a graph would add to the first one for ever."""

    name = "forgetting"

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        self.total = torch.zeros(())

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        loss = F.cross_entropy(logits, target)
        self.total = self.total + loss.detach()
        return loss / (1 + self.total)


class Baked(Method):
    """Counts its steps in Python."""

    name = "baked"
    count = 0

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        self.count += 1
        return F.cross_entropy(logits, target) * self.count


class Counting(Method):
    """Counts its steps in Python and uses the count between epochs only: no step shows that a replay does not count."""

    name = "counting"

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        self.counter, self.seen = SimpleNamespace(steps=0), list[int]()

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        self.count()
        return F.cross_entropy(logits, target)

    def count(self) -> None:
        self.counter.steps += 1


class Listing(Counting):
    """Keeps a list, or an array."""

    def count(self) -> None:
        self.seen.append(len(self.seen))


class Rising(Method):
    """Takes its loss times a number of Python that changes between epochs."""

    name = "rising"
    factor = 1.0

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        return F.cross_entropy(logits, target) * self.factor

    def on_epoch_end(self, step: StepContext) -> None:
        self.factor = 5.0 if step.epoch >= 2 else 1.0


@pytest.mark.parametrize("made", [WrongGradient, type("WrongLater", (WrongGradient,), {"wrong_from": 2}), Refusing])
def test_a_wrong_graph_is_not_trusted_and_leaves_no_trace(
    made: type[Tape], trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    eager = trained(job("ce", "train"), "off", (0, 1))
    capsys.readouterr()
    graphed = trained(job("ce", "train"), "auto", (0, 1), made=made)
    assert_same(graphed, eager)
    assert graphed.costs.graph_steps == 0
    (line,) = graphed.costs.fell_back
    assert line.startswith("eager steps instead of a graph: ")
    assert capsys.readouterr().err.splitlines() == [f"ce seed 0 train: {line}"]
    assert graphed.notes == ()


def test_a_trusted_graph_that_goes_wrong_is_found_out_and_the_record_says_so(trained: Trained) -> None:
    """As if runs that share a card disturbed each other: wrong from the third step of epoch 2 on, found in epoch 4."""
    made = type("WrongLate", (WrongGradient,), {"wrong_from": CHECKS + 3 + 2})
    run = trained(job("ce", "train", batch_size=16), "auto", range(5), made=made)
    (line,) = run.costs.fell_back
    assert line.startswith("eager steps instead of a graph: it was trusted until epoch 4; then '")
    assert run.notes == (f"train: {line}",)


@pytest.mark.parametrize("method", [Forgetting, Baked])
def test_a_method_that_no_graph_can_hold_runs_eagerly(method: type[Method], trained: Trained) -> None:
    eager, graphed = (trained(toys.job(method), mode) for mode in ("off", "auto"))
    assert_same(graphed, eager)
    assert graphed.costs.graph_steps == 0
    assert len(graphed.costs.fell_back) == 1


@pytest.mark.parametrize(("method", "where"), [(Counting, "method.counter.steps"), (Listing, "method.seen")])
def test_a_method_that_counts_on_the_host_runs_eagerly(method: type[Counting], where: str, trained: Trained) -> None:
    """Each step counts once, also the one that was to be checked."""
    eager, graphed = (trained(toys.job(method), mode, (0, 1)) for mode in ("off", "auto"))
    assert_same(graphed, eager)
    assert graphed.costs.fell_back == [f"eager steps instead of a graph: each step changes '{where}' on the host"]
    mine, theirs = (run.method for run in (graphed, eager))
    assert isinstance(mine, Counting)
    assert isinstance(theirs, Counting)
    assert (mine.counter, mine.seen) == (theirs.counter, theirs.seen)


def test_a_number_of_the_host_that_changes_between_epochs_makes_a_new_graph(trained: Trained) -> None:
    eager, graphed = (trained(toys.job(Rising, batch_size=9), mode, range(5)) for mode in ("off", "auto"))
    assert_same(graphed, eager)
    assert graphed.costs.fell_back == []
    assert graphed.costs.graph_steps > 0


@pytest.mark.parametrize("copies", range(1, 5))
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_memory_for_a_check_nothing_is_trusted(
    copies: int, precision: str, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy before or after a step of the first check, or of the second one."""
    saved, left = State.saved, iter(range(copies - 1))

    def short(state: State) -> Saved:
        if next(left, None) is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return saved(state)

    stage_job = dataclasses.replace(job("ce", "train"), precision=precision)
    wanted = trained(dataclasses.replace(job("ce", "train"), precision="float32"), "off", (0, 1))
    monkeypatch.setattr(State, "saved", short)
    run = trained(stage_job, "auto", (0, 1))
    assert all("there is no memory for a copy of the state" in line for line in run.costs.fell_back)
    assert len(run.costs.fell_back) == (2 if precision == "bfloat16" else 1)
    assert run.costs.graph_steps == 0
    assert run.network.low == ""
    if precision == "float32":
        assert_same(run, wanted)


def test_what_was_given_up_is_not_tried_again_after_a_kill(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(graph.PRECISION_TOLERANCE, "bfloat16", {"loss": 1e-7, "weights": 1e-7})
        low = dataclasses.replace(job("ce", "train"), precision="bfloat16")
        run = trained(low, "auto", (0, 1), made=WrongGradient)
    assert [line[:13] for line in run.costs.fell_back] == ["float32 inste", "eager steps i"]
    save_state(run._state_file, run._state(), low.run_key)
    again = trained(low, "auto", (2,))
    assert again.network.low == ""
    assert again.costs.fell_back == run.costs.fell_back
    assert again.costs.graph_steps == 0
    assert again.notes == run.notes


def test_what_asks_for_the_step_is_eager_without_a_word(trained: Trained) -> None:
    run = trained(toys.job(toys.Exploding), "auto", (0,))
    assert (run.costs.graph_steps, run.costs.fell_back) == (0, [])


def test_where_a_graph_is_demanded_a_wrong_one_ends_the_run(trained: Trained) -> None:
    with pytest.raises(RunFailed, match=r"LTBENCH_GRAPH=on: the graph failed: 'optimizer\.state\.3"):
        trained(job("ce", "train"), "on", made=WrongGradient)


def test_a_difference_in_the_last_bit_counts_where_bits_are_promised(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nearly(Tape):
        def replay(self) -> Tensor:
            loss = super().replay()
            loss.mul_(1 + 1e-6)
            return loss

    assert trained(job("ce", "train"), "auto", made=Nearly).costs.fell_back == []
    monkeypatch.setattr(loop, "switched_on", lambda _variable: True)
    (line,) = trained(job("ce", "train"), "auto", made=Nearly).costs.fell_back
    assert "its loss was" in line


# ---- precision -------------------------------------------------------------------------------------------------------


def test_bfloat16_is_held_against_float32(trained: Trained) -> None:
    """And the checks leave no trace in the numbers."""
    stage_job = dataclasses.replace(job("ce", "train"), precision="bfloat16")
    eager, graphed = (trained(stage_job, mode) for mode in ("off", "auto"))
    assert graphed.costs.fell_back == eager.costs.fell_back == []
    assert_same(graphed, eager)


def test_where_it_is_too_far_off_float32_is_taken_and_the_record_says_so(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(graph.PRECISION_TOLERANCE, "bfloat16", {"loss": 1e-7, "weights": 1e-7})
    run = trained(dataclasses.replace(job("ce", "train"), precision="bfloat16"), "auto")
    (line,) = run.costs.fell_back
    assert line.startswith("float32 instead of bfloat16: its loss was ")
    assert run.notes == (f"train: {line}",)
    assert run.network.low == ""


# ---- settings --------------------------------------------------------------------------------------------------------


def test_a_processor_has_no_graphs(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GRAPH, "on")
    with pytest.raises(
        UserError, match="LTBENCH_GRAPH=on: ce seed 0 train cannot be replayed from a graph: it is not on a GPU"
    ):
        toys.start(toys.job(get_method("ce")), tiny_split, tiny_images, tmp_path)
    monkeypatch.setenv(GRAPH, "sometimes")
    with pytest.raises(UserError, match="LTBENCH_GRAPH=sometimes: expected auto, on or off"):
        toys.start(toys.job(get_method("ce")), tiny_split, tiny_images, tmp_path)
