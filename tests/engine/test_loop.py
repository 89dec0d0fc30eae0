"""The training loop: equal to a plain PyTorch loop, deterministic, resumable at any step to the same bits."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.api import Batch, Classifier, Method, Stage, StepContext, StepModel, View
from harness.base.errors import RunFailed, RunSkipped, UserError
from harness.base.progress import Reporter
from harness.engine import loop
from harness.engine.checkpoint import save_state
from harness.engine.loop import StageRun
from harness.engine.seeding import seed_for
from harness.reading.dataset import Images
from harness.records.history import read_history
from harness.spec.spread import Spread
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split
from harness.toolbox.heads import CosineHead, NormedHead, initialise
from harness.toolbox.samplers import ClassAwareSampler
from tests.bench.plain import PlainLoop, plain_loader
from tests.engine.toys import Everything, Exploding, Killed, finish, job, kill_after, results, start

ImagesByPart = dict[str, Images]


class Plain(Method):
    name = "plain"


class Watched(Plain):
    """Keeps the loss of each step."""

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        self.losses: list[float] = []

    def loss(self, logits: torch.Tensor, target: torch.Tensor, step: StepContext) -> torch.Tensor:
        loss = super().loss(logits, target, step)
        self.losses.append(loss.item())
        return loss


class SameOrder(torch.utils.data.Sampler[int]):
    """The order of images that the loop takes in the epochs of a first stage with seed 0."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(seed_for(0, "train", "epoch", str(self.epoch)))
        self.epoch += 1
        return iter(rng.permutation(self.count).tolist())


def in_float64(model: Classifier, split: Split) -> Classifier:
    """The model in float64, fed with the pixels that its float32 images came from, normalised again in float64."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (split.mean, split.std))

    def exact(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        return (((inputs[0].double() * std + mean) * 255).round() / 255 - mean) / std

    model.double().backbone.register_forward_pre_hook(exact)
    return model


def test_equals_a_plain_pytorch_loop(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    """The first 50 steps, last incomplete batches included: in float64 only the order of sums tells the loops apart."""
    recipe = job(Watched, epochs=10, augment=Augment()).recipe
    run = start(job(Watched, epochs=10, augment=Augment()), tiny_split, tiny_images, tmp_path)
    model = in_float64(copy.deepcopy(run.model), tiny_split)
    in_float64(run.model, tiny_split)
    run.run(Reporter())

    order = SameOrder(len(tiny_images["train"].labels))
    device = torch.device("cpu")
    plain = PlainLoop(
        model, plain_loader(tiny_images["train"], tiny_split, recipe, device, sampler=order), recipe, device
    )
    losses = [loss for _ in range(10) for loss in plain.epoch()]
    assert isinstance(run.method, Watched)
    assert len(losses) == 50
    np.testing.assert_allclose(run.method.losses, losses, rtol=0, atol=1e-8)
    ours = run.model.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-8)


def test_same_seed_same_bytes_other_seed_other_bytes(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        finish(job(Everything, seed=seed, mixup_alpha=0.5), tiny_split, tiny_images, tmp_path / folder)
    first, again, other = (results(tmp_path / folder) for folder in "abc")
    assert first[0] == again[0]
    assert first[1] == again[1]
    assert first[0] != other[0]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(1, 14), min_size=1, max_size=4))
def test_resumes_to_the_same_bits_wherever_it_was_killed(
    stops: list[int], tiny_split: Split, tiny_images: ImagesByPart, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Noise, own sampler, held-out batches, own state and projections all go on where they stopped."""
    tmp_path, stage_job = tmp_path_factory.mktemp("kill"), job(Everything, mixup_alpha=0.5)
    finish(stage_job, tiny_split, tiny_images, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
        for stop in stops:
            run = start(stage_job, tiny_split, tiny_images, tmp_path / "parts")
            kill_after(run, stop)
            try:
                run.run(Reporter())
            except Killed:
                assert not (tmp_path / "parts" / "predictions.npz").exists()
        finish(stage_job, tiny_split, tiny_images, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_hooks_are_called_in_order(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    run = finish(job(Everything, epochs=1, batch_size=64), tiny_split, tiny_images, tmp_path)
    assert run.method.calls == ["start", "step", "after", "step", "after", "end"]  # type: ignore[attr-defined]
    assert float(run.model.head.weight.detach().abs().max()) <= 0.2
    assert run.network.optimizer.param_groups[1]["lr"] == 2 * run.network.optimizer.param_groups[0]["lr"]
    assert [group["weight_decay"] for group in run.network.optimizer.param_groups] == [0.0, 5e-4]


@pytest.mark.parametrize(("frozen_bn", "moves"), [("eval", False), ("train_as_published", True)])
def test_second_stage_trains_the_head_only(
    frozen_bn: str, moves: bool, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    first = finish(job(Plain), tiny_split, tiny_images, tmp_path / "first").model.state_dict()
    before = {name: value.clone() for name, value in first.items()}
    second = job(Plain, "finetune", frozen_bn=frozen_bn)
    second.start.update(first)
    run = start(second, tiny_split, tiny_images, tmp_path / "second")
    assert not torch.equal(run.model.head.weight, before["head.weight"])
    run.run(Reporter())
    after = run.model.state_dict()
    statistics = ("_mean", "_var", "_tracked")
    weights = [name for name in before if name.startswith("backbone") and not name.endswith(statistics)]
    assert all(torch.equal(before[name], after[name]) for name in weights)
    assert torch.equal(before["backbone.bn1.running_mean"], after["backbone.bn1.running_mean"]) != moves


def test_second_stage_may_continue_the_head(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    class Continuing(Plain):
        def continues_head(self) -> bool:
            return True

    first = finish(job(Plain), tiny_split, tiny_images, tmp_path / "first").model.state_dict()
    second = job(Continuing, "finetune", epochs=0)
    second.start.update(first)
    run = finish(second, tiny_split, tiny_images, tmp_path / "second")
    assert torch.equal(run.model.state_dict()["head.weight"], first["head.weight"])
    assert run.history.epochs == [0]


def test_methods_with_one_seed_share_backbone_and_batches(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    runs = [start(job(method), tiny_split, tiny_images, tmp_path) for method in (Plain, Exploding)]
    weights = [run.model.backbone.state_dict()["conv1.weight"] for run in runs]
    assert torch.equal(*weights)
    assert torch.equal(*(run.batches.plan(0).order for run in runs))


def test_nan_loss_ends_the_run_with_epoch_and_step(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    with pytest.raises(RunFailed, match=r"loss is nan in epoch 2, step 3") as caught:
        finish(job(Exploding), tiny_split, tiny_images, tmp_path)
    assert (caught.value.epoch, caught.value.step) == (2, 3)
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in state["model"].values())


def test_infinite_logits_are_a_failure(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    class Infinite(Plain):
        def inference(self, logits: torch.Tensor, stage: object) -> torch.Tensor:
            return logits / 0

    with pytest.raises(RunFailed, match="not finite after epoch 1"):
        finish(job(Infinite), tiny_split, tiny_images, tmp_path)


def test_skip_reason(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    class Picky(Plain):
        def skip(self) -> str | None:
            return f"needs more than {self.task.num_classes} classes"

    with pytest.raises(RunSkipped, match="needs more than 4 classes"):
        start(job(Picky), tiny_split, tiny_images, tmp_path)


def test_history_is_complete(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    finish(job(Plain, epochs=5, eval_every=2), tiny_split, tiny_images, tmp_path)
    arrays = read_history(tmp_path / "predictions.npz")
    assert arrays["epochs"].tolist() == [2, 4, 5]
    assert arrays["test"].shape == (3, 40)
    assert arrays["test"].dtype == np.uint8
    assert arrays["val"].shape == (3, 12)
    assert len(arrays["loss"]) == len(arrays["learning_rate"]) == 5
    assert arrays["logits"].shape == (40, 4)
    assert arrays["logits"].dtype == np.float16
    assert (arrays["logits"].argmax(1) == arrays["test"][-1]).mean() > 0.95  # float16 may tie


def test_drop_last(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    run = finish(job(Plain, epochs=1, batch_size=32, drop_last=True), tiny_split, tiny_images, tmp_path)
    assert run.costs.images == 64  # 70 images


def test_bfloat16_keeps_head_and_loss_in_float32(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    seen = []

    class Watching(Plain):
        def loss(self, logits: torch.Tensor, target: torch.Tensor, step: StepContext) -> torch.Tensor:
            seen.append(logits.dtype)
            return super().loss(logits, target, step)

    import dataclasses

    finish(dataclasses.replace(job(Watching, epochs=1), precision="bfloat16"), tiny_split, tiny_images, tmp_path)
    assert set(seen) == {torch.float32}


def test_resume_state_of_another_run_is_refused(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    save_state(tmp_path / "resume.pt", {}, "another")
    with pytest.raises(UserError, match=r"resume state of run another, expected plain-0"):
        finish(job(Plain), tiny_split, tiny_images, tmp_path)
    (tmp_path / "resume.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"damaged resume state .* delete it"):
        finish(job(Plain), tiny_split, tiny_images, tmp_path)


def test_learns(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    run = finish(job(Plain, epochs=12), tiny_split, tiny_images, tmp_path)
    assert (run.history.test[-1] == tiny_split.test.targets()).mean() > 0.6


# ---- features of a frozen backbone ----------------------------------------------------------------------------------


class HeadOnly(Plain):
    """Trains a head on a frozen backbone."""

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        return [{"params": list(model.head.parameters())}]


class Forgetful(dict[tuple[str, bool], list[torch.Tensor]]):
    """Keeps nothing that is asked for."""

    def __contains__(self, key: object) -> bool:
        return False


def count_forward_passes(run: StageRun) -> list[int]:
    sizes: list[int] = []
    run.model.backbone.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    return sizes


def test_features_of_evaluation_images_are_computed_once_and_change_no_bit(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    kept = start(job(HeadOnly), tiny_split, tiny_images, tmp_path / "kept")
    anew = start(job(HeadOnly), tiny_split, tiny_images, tmp_path / "anew")
    anew.network.kept_features = Forgetful()
    kept.network.shared = anew.network.shared = None  # each on its own
    passes_kept, passes_anew = count_forward_passes(kept), count_forward_passes(anew)
    kept.run(Reporter())
    anew.run(Reporter())
    assert results(tmp_path / "kept") == results(tmp_path / "anew")
    evaluated = len(tiny_images["test"].labels) + len(tiny_images["val"].labels)
    assert sum(passes_anew) - sum(passes_kept) == 2 * evaluated, "three evaluations, one of which is needed"


def test_training_features_are_computed_once_where_nothing_is_augmented(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    run = start(job(HeadOnly, augment=Augment()), tiny_split, tiny_images, tmp_path / "plain")
    passes = count_forward_passes(run)
    run.run(Reporter())
    assert sum(passes) == sum(len(tiny_images[part].labels) for part in ("train", "val", "test"))
    augmented = start(job(HeadOnly), tiny_split, tiny_images, tmp_path / "augmented/run")
    passes = count_forward_passes(augmented)
    augmented.run(Reporter())
    assert sum(passes) >= 3 * len(tiny_images["train"].labels)


def test_features_of_a_backbone_that_changes_are_not_kept(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    changing: list[tuple[dict[str, Any], type[Method]]]
    changing = [({}, Plain), ({"frozen_bn": "train_as_published"}, HeadOnly)]
    for changes, method in changing:
        run = finish(job(method, **changes), tiny_split, tiny_images, tmp_path / method.__name__)
        assert not run.network.kept_features


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_a_compiled_backbone_trains_the_same_up_to_rounding(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = finish(job(Plain, epochs=2), tiny_split, tiny_images, tmp_path / "eager")
    monkeypatch.setenv("LTBENCH_COMPILE", "1")
    fused = finish(job(Plain, epochs=2), tiny_split, tiny_images, tmp_path / "compiled")
    assert eager.network._compiled is None
    assert fused.network._compiled is not None
    np.testing.assert_allclose(fused.history.loss, eager.history.loss, rtol=1e-3)


def test_compiling_is_asked_for_by_1(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_COMPILE", "yes")
    with pytest.raises(UserError, match=r"LTBENCH_COMPILE=yes: expected 1 \(on\)"):
        start(job(Plain), tiny_split, tiny_images, tmp_path)


def test_flip_average_predicts_from_the_mean_logits_of_both_images(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    test = tiny_images["test"]
    mirrored = tiny_images | {"test": dataclasses.replace(test, pixels=test.pixels[:, :, ::-1].copy())}
    cases = {"plain": (tiny_images, False), "mirrored": (mirrored, False), "both": (tiny_images, True)}
    logits, losses = {}, []
    for name, (images, flip_average) in cases.items():
        run = finish(job(Plain, epochs=1, flip_average=flip_average), tiny_split, images, tmp_path / name)
        logits[name] = read_history(tmp_path / name / "predictions.npz")["logits"].astype(float)
        losses.append(run.history.loss)
    np.testing.assert_allclose(logits["both"], (logits["plain"] + logits["mirrored"]) / 2, atol=4e-3)
    assert not np.allclose(logits["plain"], logits["mirrored"], atol=4e-3)
    assert losses[0] == losses[1] == losses[2]


def test_costs_and_resume_state_list_every_processor_with_its_epochs(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    stage_job = job(Watched, epochs=4)
    monkeypatch.setattr(loop, "processor", lambda: "one")
    run = start(stage_job, tiny_split, tiny_images, tmp_path)
    kill_after(run, 12)  # five steps an epoch: within the third
    with pytest.raises(Killed):
        run.run(Reporter())
    monkeypatch.setattr(loop, "processor", lambda: "other")
    again = finish(stage_job, tiny_split, tiny_images, tmp_path)
    assert again.costs.processors == [
        {"processor": "one", "first_epoch": 1, "last_epoch": 3},
        {"processor": "other", "first_epoch": 3, "last_epoch": 4},
    ]


@pytest.mark.parametrize("how", ["default", "kaiming_normal"])
def test_a_linear_head_starts_as_the_recipe_says(
    how: str, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    """Uniform within 1 / sqrt(d), or normal with standard deviation sqrt(2 / d); biases and backbones do not move."""
    run = start(job(Plain, head_init=how), tiny_split, tiny_images, tmp_path / how)
    usual = start(job(Plain), tiny_split, tiny_images, tmp_path / "usual")
    weight, width = run.model.head.weight.detach(), run.model.head.in_features
    bound = width**-0.5
    if how == "default":
        assert torch.equal(weight, usual.model.head.weight)
    else:
        assert float(weight.abs().max()) > bound
        assert float(weight.std()) == pytest.approx((2 / width) ** 0.5, rel=0.15)
        assert float(weight.mean()) == pytest.approx(0, abs=0.1 * (2 / width) ** 0.5)
    assert torch.equal(run.model.head.bias, usual.model.head.bias)
    ours, theirs = run.model.backbone.state_dict(), usual.model.backbone.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_heads_of_cosines_keep_their_own_start() -> None:
    for head in (NormedHead(8, 3), CosineHead(8, 3)):
        before = head.weight.detach().clone()
        initialise(head, "kaiming_normal", 4)
        assert torch.equal(head.weight, before)


def test_epochs_that_are_evaluated(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    """Some, then all; how often changes nothing else."""
    sparse = finish(job(Plain, epochs=8, eval_every=3, eval_all_after=0.75), tiny_split, tiny_images, tmp_path / "a")
    dense = finish(job(Plain, epochs=8), tiny_split, tiny_images, tmp_path / "b")
    assert sparse.history.epochs == [3, 6, 7, 8]
    assert dense.history.epochs == list(range(1, 9))
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (tmp_path / "b/weights.safetensors").read_bytes()
    np.testing.assert_array_equal(sparse.history.test[-1], dense.history.test[-1])


# ---- the widened contract --------------------------------------------------------------------------------------------


class InOneStep(Plain):
    """The default, written as a step of its own."""

    name = "plain"

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> torch.Tensor:
        logits = model(views[0].images)
        return views[0].mixed(lambda target: F.cross_entropy(logits, target, reduction="none"))


@pytest.mark.parametrize("stage", ["train", "finetune"])
@pytest.mark.parametrize("mixup_alpha", [0.0, 0.5])
def test_a_step_of_its_own_is_the_usual_one_up_to_rounding(
    stage: Stage, mixup_alpha: float, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    usual, own = (
        finish(job(method, stage, mixup_alpha=mixup_alpha), tiny_split, tiny_images, tmp_path / method.__name__)
        for method in (Plain, InOneStep)
    )
    np.testing.assert_allclose(own.history.loss, usual.history.loss, rtol=1e-5)
    assert own.history.learning_rate == usual.history.learning_rate


class Views(Plain):
    """Looks at four batches, the last two of one sampler."""

    name = "views"
    seen: ClassVar[list[tuple[Batch, ...]]] = []

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        second = ClassAwareSampler(labels, self.task.num_classes, k=2)
        return View(self.sampler(labels, stage)), View(augment="none"), View(second, augment="strong"), View(second)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> torch.Tensor:
        self.seen.append(views)
        return F.cross_entropy(model(torch.cat([view.images for view in views])), torch.cat([v.target for v in views]))


def test_views_are_batches_of_their_own(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    """The same images as they are, and others from a sampler; a resumed run sees the same ones."""
    Views.seen.clear()
    recipe: dict[str, Any] = {"augment": Augment(2, True), "strong_augment": Augment(2, True, cutout=4), "epochs": 2}
    finish(job(Views, **recipe), tiny_split, tiny_images, tmp_path / "whole")
    whole, steps = list(Views.seen), len(Views.seen)
    for first, plain, other, again in whole:
        assert torch.equal(other.index, again.index)
        assert not torch.equal(other.images, again.images)
        assert torch.equal(first.index, plain.index)
        assert not torch.equal(first.images, plain.images)
        assert torch.equal(first.target, plain.target)
        assert len(first.images) == len(plain.images) == len(other.images)
        assert torch.equal(other.target, torch.from_numpy(tiny_images["train"].labels)[other.index])
        black = (0 - torch.tensor(tiny_split.mean)) / torch.tensor(tiny_split.std)
        assert bool((other.images == black.view(1, 3, 1, 1)).all(1).flatten(1).any(1).all()), "Cutout in each image"
    assert any(not torch.equal(first.index, other.index) for first, _, other, _ in whole)

    Views.seen.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
        run = start(job(Views, **recipe), tiny_split, tiny_images, tmp_path / "parts")
        kill_after(run, steps - 2)
        with pytest.raises(Killed):
            run.run(Reporter())
        finish(job(Views, **recipe), tiny_split, tiny_images, tmp_path / "parts")
    assert len(Views.seen) == steps
    assert all(
        torch.equal(a.images, b.images)
        for one, two in zip(whole, Views.seen, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    assert results(tmp_path / "whole") == results(tmp_path / "parts")


class Strong(Plain):
    name = "strong"

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        return View(self.sampler(labels, stage)), View(augment="strong")


def test_a_strong_view_is_checked_against_the_images_before_it_costs_anything(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    grey = {part: dataclasses.replace(some, pixels=some.pixels[..., :1]) for part, some in tiny_images.items()}
    split = dataclasses.replace(
        tiny_split, image_shape=[*tiny_split.image_shape[:2], 1], mean=tiny_split.mean[:1], std=tiny_split.std[:1]
    )
    with pytest.raises(UserError, match="lighting needs RGB images"):
        start(job(Strong, augment=Augment(), strong_augment=Augment(lighting=0.1)), split, grey, tmp_path)


class NoFirst(Plain):
    name = "no_first"

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        return (View(),)


def test_the_first_view_needs_a_sampler(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="needs a sampler"):
        start(job(NoFirst), tiny_split, tiny_images, tmp_path)


class Extended(Plain):
    """A network that stage 2 cannot take over."""

    name = "extended"

    def build(self, backbone: torch.nn.Module, stage: Stage) -> Classifier:
        if stage == "train":
            backbone.extra = torch.nn.Linear(2, 2)
        return super().build(backbone, stage)


def test_a_weight_of_stage_1_without_a_place_is_named(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    first = finish(job(Extended, epochs=1), tiny_split, tiny_images, tmp_path / "first")
    second = dataclasses.replace(job(Extended, "finetune"), start=first.model.state_dict())
    with pytest.raises(RunFailed, match=r"'backbone\.extra\.weight' \(2, 2\) has no place"):
        start(second, tiny_split, tiny_images, tmp_path / "second")


class BodyAndHead(Plain):
    """Tunes the last block and the head; the rest stays frozen."""

    name = "body_and_head"

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        return [{"params": [*model.backbone.layer3.parameters(), *model.head.parameters()]}]


def test_batchnorm_that_is_not_tuned_stands_still(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    run = start(job(BodyAndHead, "finetune"), tiny_split, tiny_images, tmp_path)
    before = copy.deepcopy(run.model.backbone.state_dict())
    run.run(Reporter())
    for name, value in run.model.backbone.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("layer3"), name


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "muon"])
def test_other_optimisers_learn_and_resume_to_the_same_bits(
    optimizer: str, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"optimizer": optimizer, "lr": 0.003, "clip_grad": 1.0, "epochs": 4}
    whole = finish(job(Plain, **changes), tiny_split, tiny_images, tmp_path / "whole")
    assert whole.history.loss[-1] < whole.history.loss[0]
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    run = start(job(Plain, **changes), tiny_split, tiny_images, tmp_path / "parts")
    kill_after(run, 7)
    with pytest.raises(Killed):
        run.run(Reporter())
    finish(job(Plain, **changes), tiny_split, tiny_images, tmp_path / "parts")
    assert results(tmp_path / "whole") == results(tmp_path / "parts")


def test_gradients_are_clipped(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    """With a limit of nearly nothing, weights hardly move; without decay and momentum by at most rate times limit."""
    still: dict[str, Any] = {"weight_decay": 0.0, "momentum": 0.0, "schedule": "constant", "epochs": 1}
    run = start(job(Plain, clip_grad=1e-3, **still), tiny_split, tiny_images, tmp_path)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    run.run(Reporter())
    moved = torch.cat([(a.detach() - b).flatten() for a, b in zip(run.model.parameters(), before, strict=True)]).norm()
    assert 0 < float(moved) <= 5 * 0.1 * 1e-3 * 1.01, "five steps"


class Pairs(Plain):
    name = "pairs"
    whole_batch = "it compares images"


def test_a_whole_batch_is_not_split(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    small = dataclasses.replace(job(Pairs), spread=Spread(micro_batch=4))
    with pytest.raises(UserError, match="--micro-batch 4: 'pairs' needs a whole batch in one process: it compares"):
        start(small, tiny_split, tiny_images, tmp_path)


class OldHook(Plain):
    def before_step(self, step: StepContext) -> None:
        """Never called."""


class OwnForward(Plain):
    def build(self, backbone: torch.nn.Module, stage: Stage) -> Classifier:
        class Whole(Classifier):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return super().forward(images)

        return Whole(backbone, self.head(stage))


@pytest.mark.parametrize(
    ("method", "reason"), [(OldHook, "before_step, which is never called"), (OwnForward, "a forward of its own")]
)
def test_hooks_that_would_not_be_called_are_refused(
    method: type[Method], reason: str, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed, match=reason):
        start(job(method), tiny_split, tiny_images, tmp_path)


class SeesItsBatch(Plain):
    """Compares what the network got with what the step says."""

    name = "sees_its_batch"

    def loss(self, logits: torch.Tensor, target: torch.Tensor, step: StepContext) -> torch.Tensor:
        assert step.batch is not None
        torch.testing.assert_close(step.model(step.batch.images), logits)
        return super().loss(logits, target, step)


@pytest.mark.parametrize("micro_batch", [0, 8])
def test_a_step_holds_the_images_that_the_network_got(
    micro_batch: int, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    """With mixup, and where a batch is split: a teacher sees what its student sees."""
    stage_job = job(SeesItsBatch, mixup_alpha=0.5, epochs=1)
    run = start(
        dataclasses.replace(stage_job, spread=Spread(micro_batch=micro_batch)), tiny_split, tiny_images, tmp_path
    )
    run.run(Reporter())
    assert len(run.history.loss) == 1
