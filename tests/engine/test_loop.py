"""The training loop: equal to a plain PyTorch loop, deterministic, resumable at any step to the same bits."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.api import Method, StepContext
from harness.data.splits import Split
from harness.datasets.base import Images
from harness.engine.history import read_history
from harness.engine.seeding import seed_for
from harness.errors import RunFailed, RunSkipped, UserError
from harness.progress import Reporter
from tests.engine.toys import Everything, Exploding, Killed, finish, job, results, start

ImagesByPart = dict[str, Images]


class Plain(Method):
    name = "plain"


def test_equals_a_plain_pytorch_loop(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    """Same weights, same order of images: the losses of a loop written by hand agree to float32 rounding."""
    run = start(job(Plain, augment=type(job(Plain).recipe.augment)()), tiny_split, tiny_images, tmp_path)
    model = copy.deepcopy(run.model)
    run.run(Reporter())

    images = torch.from_numpy(tiny_images["train"].pixels).permute(0, 3, 1, 2).float() / 255
    images, labels = (images - 0.5) / 0.25, torch.from_numpy(tiny_images["train"].labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps, losses = math.ceil(len(labels) / 16), []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * steps)
    for epoch in range(3):
        rng = np.random.default_rng(seed_for(0, "train", "epoch", str(epoch)))
        seen = []
        for batch in torch.from_numpy(rng.permutation(len(labels))).split(16):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            seen.append(loss.item())
        losses.append(np.mean(seen))
    np.testing.assert_allclose(run.history.loss, losses, rtol=2e-4)


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
            left = iter(range(stop))
            step = run._train_step

            def dying(*arguments: object, left=left, step=step) -> None:  # type: ignore[no-untyped-def]
                if next(left, None) is None:
                    raise Killed
                step(*arguments)

            patch.setattr(run, "_train_step", dying)
            try:
                run.run(Reporter())
            except Killed:
                assert not (tmp_path / "parts" / "predictions.npz").exists()
        finish(stage_job, tiny_split, tiny_images, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_hooks_are_called_in_order(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    run = finish(job(Everything, epochs=1, batch_size=64), tiny_split, tiny_images, tmp_path)
    assert run.method.calls == ["start", "before", "after", "before", "after", "end"]  # type: ignore[attr-defined]
    assert float(run.model.head.weight.detach().abs().max()) <= 0.2  # type: ignore[union-attr, operator]
    assert run.optimizer.param_groups[1]["lr"] == 2 * run.optimizer.param_groups[0]["lr"]
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.0, 5e-4]


@pytest.mark.parametrize(("frozen_bn", "moves"), [("eval", False), ("train_as_published", True)])
def test_second_stage_trains_the_head_only(
    frozen_bn: str, moves: bool, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    first = finish(job(Plain), tiny_split, tiny_images, tmp_path / "first").model.state_dict()
    before = {name: value.clone() for name, value in first.items()}
    second = job(Plain, "finetune", frozen_bn=frozen_bn)
    second.start.update(first)
    run = start(second, tiny_split, tiny_images, tmp_path / "second")
    assert not torch.equal(run.model.head.weight, before["head.weight"])  # type: ignore[union-attr]
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
    assert torch.equal(*(run._plan().order for run in runs))


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
        def inference(self, logits: torch.Tensor) -> torch.Tensor:
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
    torch.save({"run_key": "another"}, tmp_path / "resume.pt")
    with pytest.raises(UserError, match=r"resume state of run another, expected plain-0"):
        finish(job(Plain), tiny_split, tiny_images, tmp_path)
    (tmp_path / "resume.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"damaged resume state .* delete it"):
        finish(job(Plain), tiny_split, tiny_images, tmp_path)


def test_learns(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    run = finish(job(Plain, epochs=12), tiny_split, tiny_images, tmp_path)
    assert (run.history.test[-1] == tiny_split.test.targets()).mean() > 0.6
