"""Campaigns: what is run in which order, what a short budget leaves, what an import takes and refuses."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import heapq
import itertools
import json
import math
import multiprocessing
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.base import config
from harness.base.errors import DiskError, UserError
from harness.base.files import locked, sha256_json, write_json
from harness.reading.profiles import exponential_class_counts
from harness.records import runs, same_code
from harness.records.imports import import_campaign
from harness.records.progress import PROGRESS, Progress, Running, read_progress
from harness.records.runs import run_info, stage_files
from harness.records.same_code import SAME_CODE
from harness.records.schema import read_record, write_record
from harness.running import campaign, cells, packing, plans, status
from harness.running.plans import Outcome, Plan, Run, Settings, make_plan
from harness.running.sweep.contract import only_one
from harness.spec import suites
from harness.spec.entries import parse_entry
from harness.spec.provenance import code_version
from harness.spec.recipes import resolve
from harness.spec.registry import get_plugin
from harness.splits.splits import Split, read_split
from tests.factories import make_record
from tests.pipeline import dying
from tests.unit.toys import rewrite_json

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
ROOT = Path(__file__).parents[2]
OK = cast(runs.RunInfo, SimpleNamespace(status="ok"))

SUITE = """
one:
  splits: [mnist5k-lt-if100]
  entries: [ce@common, crt@common, tau_norm@common, tvmf@common, tvmf-one-stage@common]
  seeds: [0, 1]
single:
  splits: [mnist5k-lt-if100]
  entries: [ce@common, tau_norm@common]
  seeds: [0]
absent:
  splits: [imagenet-lt]
  entries: [ce@common]
"""


@pytest.fixture(autouse=True)
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suites.yaml").write_text(SUITE)
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the workers' too
    monkeypatch.delenv("LTBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_shared_first_stage_is_one_run_and_its_second_stages_come_next(tmp_path: Path) -> None:
    plan = make_plan("one", Settings(tmp_path / "out"))
    firsts = [run for run in plan.ready if run.stage == "train"]
    assert len(firsts) == len(plan.ready) == 4, "cross-entropy's and t-vMF's, for two seeds"
    assert plan.left == 10
    first = plan.take()
    assert (first.entry, first.seed) == ("ce@common", 0)
    plan.finished(first)
    assert [str(plan.take()).removeprefix("mnist5k-lt-if100 ") for _ in range(5)] == [
        "ce@common seed 0 finetune",
        "crt@common seed 0 finetune",
        "tau_norm@common seed 0 finetune",
        "ce@common seed 1 train",
        "tvmf@common seed 0 train",
    ]


def test_only_and_nothing_that_matches(tmp_path: Path) -> None:
    plan = make_plan("one", Settings(tmp_path / "out", only=("tvmf*@common",)))
    assert plan.left == 4
    with pytest.raises(UserError, match=r"no entry matches --only gcl@\*"):
        make_plan("one", Settings(tmp_path / "out", only=("gcl@*",)))


def drained(plan: Plan) -> list[str]:
    """The order in which one worker takes what the plan holds."""
    found = []
    while plan.ready:
        run = plan.take()
        plan.finished(run)
        found.append(f"{run.entry.split('@')[0]} {run.seed} {run.stage}")
    return found


def test_a_suite_may_be_listed(tmp_path: Path) -> None:
    """Group by group, seed by seed; a second stage as soon as its first one is there."""
    text = """
one:
  splits: [mnist5k-lt-if100]
  order: listed
  entries: [[gcl@common, ce@common, tau_norm@common], focal@common]
  seeds: [0, 1]
"""
    (tmp_path / "suites.yaml").write_text(text)
    group = ["gcl {} train", "gcl {} finetune", "ce {} train", "ce {} finetune", "tau_norm {} finetune"]
    alone = ["focal {} train", "focal {} finetune"]
    expected = [run.format(seed) for runs in (group, alone) for seed in (0, 1) for run in runs]
    assert drained(make_plan("one", Settings(tmp_path / "out"))) == expected


def test_what_failed_before_comes_last(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "out", only=("ce@common", "tvmf*@common"))
    plan = make_plan("one", settings)
    first = next(run for run in plan.ready if run.entry == "ce@common" and run.seed == 0)
    for run in plan.after[first.run_key]:
        write_record(plan.folders[run].records / "seed0.json", make_record(seed=0, run_key=run.run_key, failure="x"))
    again = make_plan("one", settings)
    lengths = {str(run): run.length for run in plan.waiting}
    assert {str(run): run.length for run in again.waiting} == lengths, "to failed runs there is as much to do"
    assert min(run.length for run in again.waiting) > 0
    found = drained(again)
    assert found[-2:] == ["ce 0 train", "ce 0 finetune"]
    assert found[:2] == ["ce 1 train", "ce 1 finetune"]


def complete_cells(plan: Plan, slots: int, images_per_second: float, budget: float) -> int:
    """Cells of which every seed is done when the time is over, with workers that take runs as a campaign's do."""
    busy: list[tuple[float, int, Run]] = []
    seeds, count = collections.Counter[tuple[str, str]](), itertools.count()
    now = 0.0
    while True:
        while plan.ready and len(busy) < slots:
            run = plan.take()
            heapq.heappush(busy, (now + run.passes / 3 / images_per_second, next(count), run))
        if not busy or busy[0][0] > budget:
            return sum(done == 3 for done in seeds.values())
        now, _, run = heapq.heappop(busy)
        plan.finished(run)
        seeds[run.split, run.entry] += run.stage != "train"


def test_a_budget_that_ends_early_leaves_complete_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All methods on four splits of CIFAR-10 in 540 s, 12 at once at 16,000 images/s each: 17, longest first 8."""
    names = [f"cifar10-lt-if{factor}" for factor in (100, 200, 50, 10)]
    (tmp_path / "suites.yaml").write_text(f"one: {{splits: [{', '.join(names)}], entries: ['*@common']}}")
    monkeypatch.setattr(cells, "ensure_split", lambda name, dataset, out: Path(name))

    def read(path: Path) -> Split:
        factor = float(path.name.partition("-lt-if")[2])
        counts = exponential_class_counts(5000, 10, factor)
        return cast(Split, SimpleNamespace(id=path.name, sha256=path.name, class_counts=counts))

    monkeypatch.setattr(plans, "read_split", read)
    in_cells = complete_cells(make_plan("one", Settings(tmp_path / "out")), 12, 16_000, 540)
    longest = make_plan("one", Settings(tmp_path / "out"))
    for waiting in (longest.ready, *longest.after.values()):
        waiting[:] = [dataclasses.replace(run, priority=(int(run.passes) or 10**12,)) for run in waiting]
    longest.ready.sort(key=lambda run: run.priority)
    assert in_cells >= 12
    assert in_cells >= 2 * complete_cells(longest, 12, 16_000, 540) > 0


def test_a_finished_suite_with_an_entry_left_out_is_no_mistake(tmp_path: Path) -> None:
    text = "one:\n  splits: [mnist5k-lt-if100]\n  entries: [ce@common, ce-none@common]\n  seeds: [0]\n"
    (tmp_path / "suites.yaml").write_text(text)
    plan = make_plan("one", Settings(tmp_path / "out"))
    for run in plan.after[next(iter(plan.after))]:
        write_record(plan.folders[run].records / "seed0.json", make_record(seed=0, run_key=run.run_key))
    done = make_plan("one", Settings(tmp_path / "out"))
    assert (done.left, len(done.left_out)) == (0, 1)


def test_a_suite_without_its_data_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="suite 'absent': none of its runs can be made"):
        make_plan("absent", Settings(tmp_path / "out"))


@pytest.mark.pipeline
def test_a_campaign_goes_on_where_its_budget_ended_and_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settings = tmp_path / "night", Settings(tmp_path / "night")
    (features := out / cells.SCRATCH / "features").mkdir(parents=True)
    assert campaign.campaign("single", 0.0, settings) == Outcome(left=2)
    assert features.is_dir()
    assert campaign.campaign("single", 300.0, settings) == Outcome(made=2)
    assert not features.exists()
    assert make_plan("single", settings).left == 0
    assert json.loads(next(out.glob("records/**/seed0.run.json")).read_text())["runs_at_once"] >= 1
    records = sorted(out.glob("records/**/seed?.json"))
    assert [read_record(path).status for path in records] == ["ok"] * 2

    splits = tmp_path / "results" / "splits"
    found = import_campaign(out, splits, tmp_path / "results" / "imported")
    assert (len(found.taken), found.refused) == (2, [])
    assert (splits / "mnist5k-lt-if100.json").is_file(), "the split came along"
    again = import_campaign(out, splits, tmp_path / "results" / "imported")
    assert (len(again.taken), len(again.known)) == (0, 2)
    part = shutil.copytree(out, tmp_path / "part")  # whose records the campaign has taken over since
    elsewhere = import_campaign(part, splits, tmp_path / "results" / "imported")
    assert (elsewhere.taken, sorted(elsewhere.known)) == ([], sorted(found.taken))
    recipe = read_record(records[0]).recipe
    other = recipe | {"train": recipe["train"] | {"lr": 0.7}}
    for change, reason in (
        ({"code_version": "0" * 64}, "code version"),
        ({"recipe_sha256": "0" * 64}, "its recipe does not have the hash"),
        ({"recipe": other, "recipe_sha256": sha256_json(other)}, "another recipe"),
        ({"split_sha256": "0" * 64}, "measured on split"),
        ({"stage1_key": "0" * 16}, "another run key"),
    ):
        records[0].with_name("seed7.json").write_bytes(records[0].read_bytes())
        rewrite_json(records[0].with_name("seed7.json"), **change, seed=7)
        refused = import_campaign(out, splits, tmp_path / "results" / "imported").refused
        assert len(refused) == 1
        assert reason in refused[0]
        records[0].with_name("seed7.json").unlink()
    _taken_by_a_later_checkout(out, tmp_path / "later", monkeypatch)


def _taken_by_a_later_checkout(out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code is another; where that measured the same, records of the older one are taken over as they are."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    then = {name: code_version(get_plugin(name).folder) for name in ("ce", "tau_norm")}
    now = {method: f"{method:0>16}" for method in then}
    for module in (runs, same_code):
        monkeypatch.setattr(module, "code_version", lambda plugin: now[plugin.name])
    imported = folder / "results" / "imported"
    found = import_campaign(out, folder / "splits", imported)
    assert (len(found.taken), len(found.refused)) == (0, 2)
    known = {then[method]: {"method": method, "now": now[method], "on": "digits"} for method in ("tau_norm", "ce")}
    write_json(SAME_CODE, dict(list(known.items())[:1]))
    refused = import_campaign(out, folder / "splits", imported).refused
    assert len(refused) == 2
    assert sum("its first stage was trained with other code" in reason for reason in refused) == 1, "tau_norm's is ce's"
    write_json(SAME_CODE, known)
    found = import_campaign(out, folder / "splits", imported)
    assert (len(found.taken), found.refused) == (2, [])
    assert {read_record(path).code_version for path in found.taken} == set(then.values())


@pytest.mark.pipeline
def test_a_run_that_cannot_be_done_fails_alone(tmp_path: Path) -> None:
    """The worker records a failure, the campaign goes on to its end, and the next call tries again."""
    settings = Settings(tmp_path / "out", only=("ce@*",), overrides=("recipe.epochs=1", "recipe.backbone=resnet1000"))
    outcome = campaign.campaign("one", 300.0, settings)
    assert (outcome.made, outcome.failed, outcome.left) == (2, 2, 0)
    records = [read_record(path) for path in sorted(settings.out.glob("records/**/seed?.json"))]
    assert [record.status for record in records] == ["failed"] * 2
    assert records[0].failure is not None
    assert "resnet1000" in records[0].failure.reason
    assert make_plan("one", settings).left == 2


@pytest.mark.parametrize(
    ("worker", "cause"),
    [
        (dying.by_segmentation_fault, "its process was ended by SIGSEGV"),
        (dying.by_a_kill, "its process was killed (SIGKILL); the machine may have run out of memory"),
        (dying.by_an_exit, "its process ended with exit code 7"),
        (dying.at_once, "its process ended with exit code 7"),
        (dying.within_a_message, "its process was killed (SIGKILL); the machine may have run out of memory"),
    ],
)
def test_a_worker_that_dies_is_recorded_with_what_killed_it(
    worker: Callable[..., None], cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first stage and of what follows it; another worker takes its place each time."""
    monkeypatch.setattr(campaign, "work", worker)
    settings = Settings(tmp_path / "out", device="cpu", per_device=1, only=("ce@*",))
    assert campaign.campaign("one", 120.0, settings) == Outcome(made=2, failed=2)
    for seed in (0, 1):
        (path,) = settings.out.glob(f"records/**/seed{seed}.json")
        failure = read_record(path).failure
        assert failure is not None
        assert failure.reason == cause


def test_a_finished_first_stage_that_a_worker_dies_of_stays_finished(tmp_path: Path) -> None:
    """A call that goes on gives it out again, to be looked at; hours of training are not lost with that process."""
    out = tmp_path / "out"
    run = make_plan("one", Settings(out, only=("crt@*",))).take()
    cell, file, folders = plans._where(run, out)
    info = run_info(cell, read_split(file), run.seed, "train")
    well, badly = dataclasses.replace(info, status="ok"), info.failed("before")
    for there, expected in ((well, "ok"), (dataclasses.replace(well, run_key="0" * 16), "failed"), (badly, "failed")):
        runs.write_run_info(stage_files(folders.first, run.seed)["run.json"], there)
        assert plans.fail(run, out, "killed").status == expected
        assert runs.read_run_info(stage_files(folders.first, run.seed)["run.json"]).status == expected


NO_SPACE = "costs.json: No space left on device"


def test_a_full_disk_ends_a_campaign_and_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "work", dying.of_a_full_disk)
    with pytest.raises(UserError, match=f"^{NO_SPACE}$"):
        campaign.campaign("one", 120.0, Settings(tmp_path / "out", device="cpu", per_device=2))
    assert not list(tmp_path.glob("out/records/**/*"))


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "costs.json"), True),  # outside of training
        (DiskError(NO_SPACE), True),  # within
        (OSError(errno.ENOENT, "No such file or directory", "one.png"), False),
        (UserError("one.png: not an image"), False),
        (plans.OtherRunError(NO_SPACE), True),  # the checkout was edited: all that follow would be other runs, too
    ],
)
def test_a_worker_tells_a_full_disk_from_a_run_that_cannot_be_done(
    error: Exception, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> None:
        raise error

    monkeypatch.setattr(campaign, "do", raising)
    ours, theirs = multiprocessing.Pipe()
    with ours:
        ours.send(make_plan("one", Settings(tmp_path / "out")).take())
        if ends:
            with pytest.raises((DiskError, plans.OtherRunError), match=f"^{NO_SPACE}$"):
                campaign.work(theirs, tmp_path / "out", "cpu")
            return
        worker = threading.Thread(target=_until_its_end, args=(theirs, tmp_path / "out"), daemon=True)
        worker.start()
        assert ours.poll(60.0)
        assert ours.recv().failure.reason.startswith("one.png: ")
    worker.join(60.0)


def _until_its_end(connection: Connection, out: Path) -> None:
    """A worker's life; the end of the campaign ends its process."""
    with contextlib.suppress(EOFError):
        campaign.work(connection, out, "cpu")


def test_a_worker_that_dies_while_it_waits_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "work", dying.while_idle)
    settings = Settings(tmp_path / "out", device="cpu", per_device=2, only=("ce@*",))
    assert campaign.campaign("one", math.inf, settings) == Outcome(made=2)


def test_a_run_is_given_to_an_idle_worker_that_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the death of another one has been heard by then or not; else to a new one."""
    (dead, end), (alive, other), (new, theirs) = (multiprocessing.Pipe() for _ in range(3))
    end.close()
    pool = SimpleNamespace(start=lambda *_: new)
    crew = campaign._Crew("cpu", packing.Packing("cpu", 3, print), tmp_path, cast(Any, pool))
    crew._idle += [alive, dead]
    plan = make_plan("one", Settings(tmp_path / "out", only=("ce@*",)))
    crew.set_to_work(plan, make_tracker(tmp_path / "out", plan))
    assert list(crew.busy) == [alive, new]
    assert [other.recv(), theirs.recv()] == list(crew.busy.values())


def test_a_card_gets_more_runs_as_long_as_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A second worker, as the first one's speed is known; how many in the end: `tests/unit/test_packing.py`."""
    (tmp_path / "suites.yaml").write_text("one: {splits: [mnist5k-lt-if100], entries: [ce@common], seeds: [0, 1, 2]}")
    monkeypatch.setattr(campaign, "work", dying.on_a_card)
    monkeypatch.setattr(campaign, "slots", lambda _settings: ["cuda:0"] * 4)
    monkeypatch.setattr(campaign, "shared_cards", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(packing, "SECONDS", 0.2)
    assert campaign.campaign("one", 120.0, Settings(tmp_path / "out")) == Outcome(made=3)
    said = capfd.readouterr().err
    (beside,) = re.findall(r"seed 0 train: epoch 40/40  beside (\S+)", said)
    assert 1 < float(beside) < 3, "others came while it was under way"
    assert read_progress("one", tmp_path / "out").workers > 1


def test_records_of_other_code_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path / "out", only=("ce@*",))
    plan = make_plan("one", settings)
    assert plan.left == 2
    cell = resolve(parse_entry("ce@common"), "mnist5k")
    folder = cells.folders(cell, "mnist5k-lt-if100", settings.out)
    info = run_info(cell, read_split(settings.out / "splits/mnist5k-lt-if100.json"), 0, "train")
    found = make_record(seed=0, run_key=info.run_key)
    write_record(folder.records / "seed0.json", found)
    assert make_plan("one", settings).left == 1
    write_record(folder.records / "seed0.json", dataclasses.replace(found, run_key="0" * 16))
    assert make_plan("one", settings).left == 2


def test_two_campaigns_in_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(UserError, match="another command is at work there"):
        campaign.campaign("one", 1.0, Settings(tmp_path / "out"))


def test_a_worker_waits_for_a_job_that_a_sweep_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's jobs outlive their head; a campaign must not do the same run beside one."""
    run = make_plan("one", Settings(tmp_path / "out")).take()
    ours, theirs = multiprocessing.Pipe()
    monkeypatch.setattr(campaign, "do", lambda *_: "done")

    worker = threading.Thread(target=_until_its_end, args=(theirs, tmp_path / "out"), daemon=True)
    worker.start()
    with only_one(tmp_path / "out", run.folder):
        ours.send(run)
        assert not ours.poll(1.0)
    assert ours.poll(60.0)
    assert ours.recv() == "done"
    ours.close()
    worker.join(60.0)


def test_importing_from_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no records"):
        import_campaign(tmp_path, tmp_path / "splits")


# ---- how far it is -------------------------------------------------------------------------------------------------


@pytest.mark.pipeline
def test_status_says_how_far_it_is_and_keeps_what_a_lost_machine_would_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within a first stage, saved, lost, brought back: it goes on where it was, to the same records."""
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0.1")
    short: dict[str, Any] = {"per_device": 1, "overrides": ("recipe.epochs=4",)}
    settings, whole = Settings(tmp_path / "night", **short), Settings(tmp_path / "whole", **short)
    assert campaign.campaign("single", 300.0, whole) == Outcome(made=2)

    def clock() -> float:
        """Jumps over the end of the budget as soon as there is something to keep."""
        begun = (settings.out / PROGRESS).is_file() and read_progress("single", settings.out).needed
        return 1000.0 * bool(begun)

    with monkeypatch.context() as patch:
        patch.setattr(campaign, "time", SimpleNamespace(monotonic=clock))
        campaign.campaign("single", 300.0, settings)
    found = read_progress("single", settings.out)
    assert found.needed, "there was something to keep, and no more is left of it"
    assert (found.made, found.left, found.failed) == (0, 2, 0)
    for line in status.describe(found, settings.out):
        assert "\n" not in line
    status.save(found, settings.out, tmp_path / "kept")
    shutil.rmtree(settings.out)
    shutil.copytree(tmp_path / "kept", settings.out)
    assert campaign.campaign("single", 300.0, settings) == Outcome(made=2)
    done = read_progress("single", settings.out)
    assert (done.made, done.left, done.running, done.needed, done.hours_left) == (2, 0, [], [], 0.0)
    records = sorted(whole.out.glob("records/**/seed?.json"))
    assert len(records) == 2
    for path in records:
        assert path.read_bytes() == (settings.out / path.relative_to(whole.out)).read_bytes()


def made_campaign(out: Path, epoch: int, made: int = 1) -> Path:
    """A campaign's folder, stopped at an epoch of its second run."""
    state = f"{cells.SCRATCH}/key-cpu/resume.pt"
    (out / state).parent.mkdir(parents=True, exist_ok=True)
    (out / state).write_text(f"epoch {epoch}")
    progress = Progress("one", made=made, running=[Running("second", epoch, 200)], needed=[state])
    write_json(out / PROGRESS, config.as_dict(progress))
    for seed in range(made):
        write_record(out / f"records/ce/seed{seed}.json", make_record(seed=seed))
    return out


def saved(out: Path, folder: Path) -> list[Path]:
    return status.save(read_progress("one", out), out, folder)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", [".", "out", "out/kept", "out/records", "other", "elsewhere", "a-file"])
def test_nothing_but_what_was_saved_before_is_replaced(place: str, tmp_path: Path) -> None:
    """Not the campaign, nor what lies around it or in it, nor another one's folder, nor anything else."""
    out = made_campaign(tmp_path / "out", 3)
    with locked(made_campaign(tmp_path / "other", 2)):  # which leaves its lock
        pass
    Path("elsewhere").mkdir()
    Path("elsewhere/thesis.tex").touch()
    Path("a-file").touch()
    before = files(tmp_path)
    with pytest.raises(UserError, match="name another"):
        saved(out, Path(place))
    assert files(tmp_path) == before


def test_what_is_kept_is_replaced_only_by_what_is_further_on(tmp_path: Path) -> None:
    out, kept = made_campaign(tmp_path / "out", 3), tmp_path / "kept"
    kept.mkdir()
    for _ in range(2):
        saved(out, kept)
        assert files(kept) == files(out)
    for epoch, made in ((9, 1), (0, 2)):
        newer = made_campaign(tmp_path / f"newer-{made}", epoch, made)
        saved(newer, kept)
        with pytest.raises(UserError, match="kept: is further on than the campaign in out; bring it back first"):
            saved(out, kept)
        assert files(kept) == files(newer)
    made_campaign(out, 3, made=2)
    shutil.rmtree(out / "work")  # begun anew, without what is kept
    write_json(out / PROGRESS, config.as_dict(Progress("one", made=2)))
    with pytest.raises(UserError, match="is further on"):
        saved(out, kept)


def test_a_failed_run_that_is_made_again_is_no_step_back(tmp_path: Path) -> None:
    """Among the records made it counts in the call in which it failed, and not in the next."""
    out, kept = made_campaign(tmp_path / "out", 3, made=2), tmp_path / "kept"
    write_json(out / PROGRESS, config.as_dict(Progress("one", made=2, failed=1)))
    saved(out, kept)
    write_json(out / PROGRESS, config.as_dict(Progress("one", made=1)))
    saved(out, kept)
    assert files(kept) == files(out)


def test_a_first_stage_that_ends_is_progress(tmp_path: Path) -> None:
    """Its epochs count no more, and no record has been made."""
    out, kept = made_campaign(tmp_path / "out", 199), tmp_path / "kept"
    saved(out, kept)
    shutil.rmtree(out / "work")
    needed = [path.relative_to(out).as_posix() for path in stage_files(out / "work/train", 0).values()]
    for name in needed:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    write_json(out / PROGRESS, config.as_dict(Progress("one", made=1, running=[Running("then", 2, 10)], needed=needed)))
    saved(out, kept)
    assert files(kept) == files(out)


def test_what_ends_while_it_is_saved_is_kept_as_a_state_or_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends before the first file is copied, before the second, ..."""
    copy = shutil.copyfile
    for last in range(4):
        out, kept = made_campaign(tmp_path / f"out-{last}", 3), tmp_path / f"kept-{last}"
        moments = iter([*[False] * last, True])

        def copied(source: Path, target: Path, out: Path = out, moments: Iterator[bool] = moments) -> None:
            if next(moments, False):
                write_record(out / "records/ce/seed1.json", make_record(seed=1))
                next(out.glob(status.STATES)).unlink()
            copy(source, target)

        monkeypatch.setattr(shutil, "copyfile", copied)
        saved(out, kept)
        assert list(kept.glob(status.STATES)) or (kept / "records/ce/seed1.json").is_file()


def test_a_save_that_is_interrupted_leaves_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, kept = made_campaign(tmp_path / "out", 3), tmp_path / "kept"
    saved(out, kept)
    before = files(kept)
    made_campaign(out, 9, made=2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            saved(out, kept)
    assert files(kept) == before
    saved(out, kept)
    assert files(kept) == files(out)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "kept", "suites.yaml"}


def make_tracker(out: Path, plan: Plan) -> status.Tracker:
    return status.Tracker(out, "one", plan, 2)


def test_what_is_needed_and_how_long_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume states of what is under way, first stages that others wait for; time left from the epochs measured."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = tmp_path / "out"
    plan = make_plan("one", Settings(out, only=("ce@*", "tau_norm@*")))
    tracker = make_tracker(out, plan)
    assert read_progress("one", out).hours_left is None
    run = plan.take()
    tracker.started(run)
    state = out / "work/.scratch" / f"{run.run_key}-cpu" / "resume.pt"
    state.parent.mkdir(parents=True)
    state.touch()
    for epoch in (5, 6):
        now[0] += 100.0
        tracker.epoch(run, epoch, 15)
    found = read_progress("one", out)
    assert found.running == [Running(str(run), 6, 15)]
    assert found.needed == [state.relative_to(out).as_posix()]
    per_pass = 100 / (run.length / 15)
    assert found.seconds_per_pass == pytest.approx(per_pass)
    assert found.hours_left == pytest.approx(per_pass * run.length * (9 / 15 + 1) / 2 / 3600, abs=0.01)

    for path in stage_files(plan.folders[run].first, run.seed).values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    state.unlink()
    plan.finished(run)
    tracker.finished(run, OK)
    assert len(read_progress("one", out).needed) == 4, "cross-entropy's record and tau-normalisation wait for it"
    for _ in range(2):
        second = plan.take()
        tracker.started(second)
        tracker.finished(second, OK)
    found = read_progress("one", out)
    assert (found.made, found.left, found.needed) == (2, 2, [])
    again = make_tracker(out, make_plan("one", Settings(out, only=("ce@*", "tau_norm@*"))))
    assert again._hours_left() == pytest.approx(2 * per_pass * run.length / 2 / 3600, abs=0.01)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "missing"),
        ("{", "not a readable progress file"),
        ("[]", "progress.json"),
        ('{"suite": "other"}', "of suite 'other'"),
    ],
)
def test_progress_files_that_cannot_be_read(content: str | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / PROGRESS).write_text(content)
    with pytest.raises(UserError, match=reason):
        read_progress("one", tmp_path)


def test_a_progress_file_of_a_later_version_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / PROGRESS, {"suite": "one", "made": 3, "left": 1, "something_new": 1})
    found = read_progress("one", tmp_path)
    assert status.describe(found, tmp_path)[0] == "one: 3 of 4 records made; 1 left"
    assert status.as_json(found, tmp_path)["at_work"] is False
    with locked(tmp_path):
        assert status.as_json(found, tmp_path)["at_work"] is True
