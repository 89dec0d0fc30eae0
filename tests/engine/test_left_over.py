"""Case D: an epoch that ends with a single image, which BatchNorm cannot normalise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Batch, Method
from harness.base.errors import RunFailed, UserError
from harness.base.progress import Reporter
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.engine.parallel import micro_batches
from harness.reading.dataset import Images
from harness.reading.profiles import PROFILES
from harness.records.schema import read_record, record_paths
from harness.spec.entries import TRACKS, parse_entry
from harness.spec.recipe_layers import has_recipe
from harness.spec.recipes import resolve
from harness.spec.registry import available_methods
from harness.spec.spread import Spread
from harness.spec.stage_recipe import StageRecipe
from harness.splits import store
from harness.splits.splits import Split
from harness.toolbox.schedules import batch_sizes
from tests.engine.toys import Everything, Killed, finish, job, kill_after, results, start

ROOT = Path(__file__).parents[2]
# Training images of the official lists (Liu et al., CVPR 2019; iNaturalist 2018), and of this project's other sets.
ImagesByPart = dict[str, Images]
GIVEN = {"imagenet-lt": 115_846, "places-lt": 62_500, "inat2018": 437_513}


class Plain(Method):
    """Cross-entropy."""

    name = "plain"


def needs_two(**changes: Any) -> StageJob:
    """70 images; a network whose last BatchNorm sees one value of each channel and image."""
    return dataclasses.replace(job(Plain, epochs=2, **changes), backbone="resnet18")


def test_case_d_a_single_image_joins_the_batch_before_it(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    run = finish(needs_two(batch_size=23, mixup_alpha=0.5), tiny_split, tiny_images, tmp_path)
    plan = run.batches.plan(0)
    assert [where.stop - where.start for where in run.batches.positions(plan)] == [23, 23, 24]
    assert sorted(plan.partner[46:].tolist()) == list(range(24)), "the image that joined is mixed up with its batch"
    assert len(set(plan.mixup[46:].tolist())) == 1
    assert run.costs.images == 2 * 70
    assert run.notes == ("train: the last batch of an epoch has 24 images; one of 70 was left over",)


def test_case_d_with_a_batch_less_than_all_of_them(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    run = finish(needs_two(batch_size=69), tiny_split, tiny_images, tmp_path)
    assert [where.stop - where.start for where in run.batches.positions(run.batches.plan(0))] == [70]


def test_case_d_no_other_run_has_a_note(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    dropped = finish(needs_two(batch_size=23, mixup_alpha=0.5, drop_last=True), tiny_split, tiny_images, tmp_path / "1")
    assert (dropped.costs.images, dropped.notes) == (2 * 69, ())
    assert finish(needs_two(batch_size=24), tiny_split, tiny_images, tmp_path / "2").notes == ()


def test_case_d_a_resumed_run_has_the_same_bits_and_note(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    whole = finish(job(Everything, batch_size=23), tiny_split, tiny_images, tmp_path / "whole")
    for steps in (2, 3):
        run = start(job(Everything, batch_size=23), tiny_split, tiny_images, tmp_path / "parts")
        kill_after(run, steps)
        with pytest.raises(Killed):
            run.run(Reporter())
    again = finish(job(Everything, batch_size=23), tiny_split, tiny_images, tmp_path / "parts")
    assert again.notes == whole.notes != ()
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_case_d_a_batch_of_one_is_one_line(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="BatchNorm got a batch of a single image; batch_size is 1; take a larger one"):
        finish(needs_two(batch_size=1), tiny_split, tiny_images, tmp_path)


def test_case_d_micro_batches_likewise(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    spread = dataclasses.replace(needs_two(batch_size=35), spread=Spread(micro_batch=17))
    run = StageRun(spread, tiny_split, tiny_images, torch.device("cpu"), tmp_path)  # 17, 17 and 1
    run.run(Reporter())
    assert len(run.history.loss) == 2
    alone = dataclasses.replace(needs_two(batch_size=35), spread=Spread(micro_batch=1))
    run = StageRun(alone, tiny_split, tiny_images, torch.device("cpu"), tmp_path / "1")
    with pytest.raises(UserError, match="BatchNorm got a single image"):
        run.run(Reporter())


@given(st.integers(1, 60), st.integers(1, 20))
def test_case_d_pieces_of_a_batch(count: int, size: int) -> None:
    rows = torch.arange(count)
    pieces = micro_batches(Batch(rows.view(-1, 1, 1, 1), rows, rows, rows + 100), size)
    sizes = [len(piece.index) for piece in pieces]
    assert torch.cat([piece.target for piece in pieces]).tolist() == rows.tolist()
    assert [len(piece.other) for piece in pieces if piece.other is not None] == sizes
    assert max(sizes) <= size + 1
    assert 1 not in sizes or size == 1 or count == 1


@given(st.integers(1, 500), st.integers(1, 64), st.booleans())
def test_case_d_all_other_epochs_have_the_batches_they_had(count: int, size: int, drop_last: bool) -> None:
    full, rest = divmod(count, size)
    expected = [size] * full + [rest] * bool(rest and not (drop_last and full))
    if rest == 1 and full and size > 1 and not drop_last:
        expected = [size] * (full - 1) + [size + 1]
    recipe = StageRecipe(epochs=1, batch_size=size, lr=0.1, weight_decay=0.0, drop_last=drop_last)
    assert recipe.batches(count) == expected
    assert sum(batch_sizes(count, size, drop_last=drop_last)) == count, "the plan of an epoch has every position"


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 2000))
def test_case_d_steps_become_as_many_epochs_as_there_are_batches_for(count: int, size: int, steps: int) -> None:
    recipe = StageRecipe(epochs=0, iterations=steps, batch_size=size, lr=0.1, weight_decay=0.0).for_images(count)
    batches = len(recipe.batches(count))
    assert (recipe.epochs - 1) * batches < steps <= recipe.epochs * batches


def official_lengths(name: str) -> set[int]:
    """Training images of the splits that people publish on."""
    dataset = store.get_dataset(name)
    if name in GIVEN:
        return {GIVEN[name]}
    profiles = [PROFILES["exponential"], PROFILES["step"]] if dataset.profiled else []
    return {
        sum(profile(dataset.train_class_size, dataset.num_classes, factor))
        for profile in profiles
        for factor in (10, 20, 50, 100, 200)
    }


@pytest.mark.parametrize("name", store.available_datasets())
def test_case_d_no_published_recipe_leaves_a_single_image(name: str) -> None:
    """So every published number keeps its bits."""
    lengths, checked = official_lengths(name), 0
    for entry in (parse_entry(f"{method}@{track}") for method in available_methods() for track in TRACKS):
        if not has_recipe(entry, name):
            continue
        recipe = resolve(entry, name).recipe
        for stage in filter(None, (recipe.train, recipe.finetune)):
            checked += 1
            left = {n for n in lengths if max(stage.batches(n)) > stage.batch_size}
            assert not left, f"{entry} on {name}: batches of {stage.batch_size} from {left}"
    assert checked


def test_case_d_no_committed_record_had_a_single_image_left_over() -> None:
    seen = set()
    for path in record_paths(ROOT / "results/records", ROOT / "results/imported"):
        record = read_record(path)
        for stage in record.stages:
            seen.add((sum(record.class_counts), record.recipe[stage]["batch_size"]))
    assert seen
    assert not [pair for pair in seen if pair[0] % pair[1] == 1 and pair[1] > 1]
