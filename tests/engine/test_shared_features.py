"""Features under a frozen backbone that several runs need: computed once, and no bit of any run depends on it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, Stage, StepContext, StepModel
from harness.base.progress import Reporter
from harness.engine import shared_features
from harness.engine.loop import StageRun
from harness.reading.dataset import Images
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split
from tests.engine.toys import Killed, finish, job, kill_after, results, start

ImagesByPart = dict[str, Images]


class Tuned(Method):
    """A head over a frozen backbone."""

    name = "tuned"

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        return [{"params": list(model.head.parameters())}]


class Doubled(Tuned):
    """Another loss over the same features, which it asks for twice."""

    name = "doubled"

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        model.embed(views[0].images)
        return 2 * self.loss(model(views[0].images), views[0].target, step)


class Shifted(Tuned):
    """Its network sees images that are not those of the batch."""

    name = "shifted"

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        return self.loss(model(views[0].images + 1), views[0].target, step)


class InPlace(Tuned):
    """Its head changes the features that it is given."""

    name = "in_place"

    def head(self, stage: Stage) -> nn.Module:
        return nn.Sequential(nn.ReLU(inplace=True), nn.Threshold(0.1, 5.0, inplace=True), super().head(stage))


class Built(Tuned):
    """A network of its own making."""

    name = "built"

    def build(self, backbone: Any, stage: Stage) -> Classifier:
        return super().build(backbone, stage)


def passes(run: StageRun) -> int:
    """Images that go through the backbone while the run goes to its end."""
    sizes: list[int] = []
    run.model.backbone.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    run.run(Reporter())
    return sum(sizes)


def files(folder: Path) -> list[Path]:
    return sorted((folder / shared_features.FOLDER).glob("*"))


def test_a_second_method_computes_nothing_and_gets_the_same_bits(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/first")
    for method in (Doubled, Tuned):
        run = start(job(method), tiny_split, tiny_images, tmp_path / "shared" / method.name)
        assert passes(run) == 0
        finish(job(method), tiny_split, tiny_images, tmp_path / method.name / "alone")
        assert results(tmp_path / "shared" / method.name) == results(tmp_path / method.name / "alone")


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 17}, {"mixup_alpha": 0.2}, {"augment": Augment(crop_padding=1)}, {"drop_last": True}],
    ids=lambda changes: next(iter(changes)),
)
def test_other_batches_have_features_of_their_own(
    changes: dict[str, Any], tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/first")
    found = len(files(tmp_path / "shared"))
    finish(job(Tuned, **changes), tiny_split, tiny_images, tmp_path / "shared/second")
    assert len(files(tmp_path / "shared")) == found + 3, "three epochs; test and validation images are shared"
    finish(job(Tuned, **changes), tiny_split, tiny_images, tmp_path / "alone/second")
    assert results(tmp_path / "shared/second") == results(tmp_path / "alone/second")


def test_other_seeds_weights_and_pixels_have_features_of_their_own(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "first")
    found = len(files(tmp_path))
    finish(job(Tuned, seed=1), tiny_split, tiny_images, tmp_path / "seed")
    assert len(files(tmp_path)) == 2 * found
    darker = {name: dataclasses.replace(part, pixels=part.pixels // 2) for name, part in tiny_images.items()}
    finish(job(Tuned), tiny_split, darker, tmp_path / "darker")
    assert len(files(tmp_path)) == 3 * found


def test_costs_are_those_of_a_run_alone(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    first = finish(job(Tuned), tiny_split, tiny_images, tmp_path / "first")
    second = finish(job(Doubled), tiny_split, tiny_images, tmp_path / "second")
    assert first.costs.shared_seconds == 0
    assert 0 < second.costs.shared_seconds < first.costs.train_seconds + first.costs.eval_seconds
    assert second.costs.wall_seconds > second.costs.shared_seconds
    half = start(job(Tuned), tiny_split, tiny_images, tmp_path / "half")
    half.step = 1  # as if resumed: of the first epoch it takes over what it has not had
    half.run(Reporter())
    assert 0 < half.costs.shared_seconds < second.costs.shared_seconds


def test_costs_of_training_features_are_costs_of_training(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    finish(job(Tuned, augment=Augment()), tiny_split, tiny_images, tmp_path / "first")
    run = start(job(Tuned, augment=Augment()), tiny_split, tiny_images, tmp_path / "second")
    assert run.network.shared is not None
    run.network.part_features("train", range(4))
    run.network.kept_features.clear()
    run.network.shared.seconds_taken()
    run.network.part_features("train", range(4))
    assert run.network.shared.seconds_taken()["train_seconds"] > 0


@pytest.mark.parametrize("method", [Shifted, Built])
def test_what_the_plan_does_not_tell_is_not_shared(
    method: type[Method], tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/first")
    run = start(job(method), tiny_split, tiny_images, tmp_path / "shared/second")
    assert passes(run) >= 3 * len(tiny_images["train"].labels)
    finish(job(method), tiny_split, tiny_images, tmp_path / "alone/second")
    assert results(tmp_path / "shared/second") == results(tmp_path / "alone/second")


def test_a_head_that_works_in_place_changes_nothing_for_others(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        finish(job(InPlace), tiny_split, tiny_images, tmp_path / "shared" / name)
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/third")
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "alone/third")
    assert results(tmp_path / "shared/first") == results(tmp_path / "shared/second")
    assert results(tmp_path / "shared/third") == results(tmp_path / "alone/third")


def test_a_kill_leaves_no_half_epoch(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    run = start(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/first")
    kill_after(run, 2)
    with pytest.raises(Killed):
        run.run(Reporter())
    run._saved_at = 0
    run._maybe_checkpoint()  # in the middle of the first epoch
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/first")
    assert len(files(tmp_path / "shared")) == 2 + 2, "epochs 2 and 3, test and validation"
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "alone/first")
    assert results(tmp_path / "shared/first") == results(tmp_path / "alone/first")


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-70] + b"x" * 70)


@pytest.mark.parametrize("change", [damaged, Path.unlink])
def test_damaged_or_missing_files_are_computed_again(
    change: Callable[[Path], None], tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/first")
    before = set(files(tmp_path / "shared"))
    for path in before:
        change(path)
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/second")
    assert set(files(tmp_path / "shared")) == before
    run = start(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/third")
    assert passes(run) == 0
    assert results(tmp_path / "shared/first") == results(tmp_path / "shared/second")


def test_the_folder_stays_small_and_a_full_disk_is_no_failure(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_features, "KEPT", 2**16)
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/first")
    assert 0 < sum(path.stat().st_size for path in files(tmp_path / "shared")) <= 2**16
    shutil.rmtree(tmp_path / "shared" / shared_features.FOLDER)
    (tmp_path / "shared" / shared_features.FOLDER).write_text("in the way")
    finish(job(Tuned), tiny_split, tiny_images, tmp_path / "shared/second")
    assert results(tmp_path / "shared/first") == results(tmp_path / "shared/second")
