"""One contract, every executor: the same fake runs, killed in every place where something can be killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.running.sweep.contract import (
    ATTEMPT,
    Executor,
    damaged,
    folder_of,
    is_done,
    last_line,
    withdraw,
    write_done,
    write_spec,
)
from tests.sweep.fakes import drive, open_fake_executor, spec, starts, table
from tests.sweep.slurm_cluster import slurm_cluster, why_there_is_none

ROOT = Path(__file__).parents[2]
REASONS = {"ray": "the extra 'ray' is not installed", "submitit": "the extra 'slurm' (submitit) is not installed"}
SMALL = {"include_dashboard": False, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module", params=["local", "ray", "slurm", "slurm-cluster"])
def name(request: pytest.FixtureRequest) -> str:
    """An engine; `slurm` is submitit without Slurm, `slurm-cluster` Slurm itself on two nodes."""
    module = {"ray": "ray", "slurm": "submitit", "slurm-cluster": "submitit"}.get(request.param)
    if module:
        pytest.importorskip(module, reason=REASONS[module])
    if request.param == "slurm-cluster" and (reason := why_there_is_none()):
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="module")
def address(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a Ray cluster of one node, which tests join and leave; Slurm's is in the environment."""
    if name == "ray":
        with ray_cluster(2) as cluster:
            yield cluster.address
    elif name == "slurm-cluster":
        with slurm_cluster(tmp_path_factory.mktemp("slurm")):
            yield ""
    else:
        yield ""


@contextlib.contextmanager
def ray_cluster(cpus: int) -> Iterator[Any]:
    """A cluster of one node on this machine."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else a busy machine starves them, and seconds become minutes
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, **SMALL})
        yield cluster
        cluster.shutdown()


@pytest.fixture(autouse=True)
def _import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the attempts, wherever they are started


@pytest.fixture
def executor(name: str, address: str, tmp_path: Path, _import_path: None) -> Iterator[Executor]:
    executor = open_fake_executor(name, tmp_path, address)
    yield executor
    executor.close()


def test_every_run_ends_with_done_and_a_second_head_runs_nothing(executor: Executor, tmp_path: Path) -> None:
    specs = [spec(tmp_path, "first"), spec(tmp_path, "second", after="first"), spec(tmp_path, "other")]
    summary = drive(tmp_path, executor, specs)
    assert sorted(summary.done) == ["first", "other", "second"]
    assert table(tmp_path) == ["first", "other", "second"]
    assert starts(tmp_path).index("first") < starts(tmp_path).index("second")
    assert is_done(tmp_path, "second")
    assert list(json.loads((folder_of(tmp_path, "second") / "DONE").read_text())["files"]) == ["records/second.json"]

    again = drive(tmp_path, executor, specs)
    assert (sorted(again.skipped), again.done) == (["first", "other", "second"], [])
    assert len(starts(tmp_path)) == 3


def test_settings_of_the_head_reach_the_command(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_THREADS", "7")  # after the engine has started
    drive(tmp_path, executor, [spec(tmp_path, "one", "says LTBENCH_THREADS")])
    assert "LTBENCH_THREADS=7" in (folder_of(tmp_path, "one") / "log.txt").read_text().split("\n")


def test_the_last_line_is_of_the_last_attempt(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(f"{ATTEMPT}\nout of memory\n")
    assert last_line(tmp_path) == "out of memory"
    log.write_text(f"{ATTEMPT}\nout of memory\n{ATTEMPT}\n")
    assert last_line(tmp_path) == "", "it was killed before it said anything"


@pytest.mark.parametrize("who", ["attempt", "engine"])
def test_a_worker_killed_with_sigkill_is_tried_again(executor: Executor, name: str, tmp_path: Path, who: str) -> None:
    if (name, who) == ("local", "engine"):
        pytest.skip("the engine of local runs is the head")
    what = f"killed {('attempt', 'engine').index(who)}"
    summary = drive(tmp_path, executor, [spec(tmp_path, "victim", what), spec(tmp_path, "bystander")])
    assert sorted(summary.done) == ["bystander", "victim"]
    assert starts(tmp_path).count("victim") == 2
    assert table(tmp_path) == ["bystander", "victim"]
    assert "victim: " in (tmp_path / "notes.txt").read_text()


def test_a_run_submitted_twice_is_done_once(executor: Executor, tmp_path: Path) -> None:
    twice = spec(tmp_path, "twice", "waits")
    write_spec(tmp_path, twice)
    executor.submit([twice])
    wait_for(lambda: starts(tmp_path) == ["twice"])
    executor.submit([twice])
    wait_for(lambda: somebody_waits_for(folder_of(tmp_path, "twice") / "lock"))
    (tmp_path / "go").touch()
    codes: list[int | None] = []
    while len(codes) < 2:
        codes += [ended.code for ended in executor.ended(30)]
    assert codes == [0, 0]
    assert table(tmp_path) == starts(tmp_path) == ["twice"]


def test_a_run_that_always_fails_is_given_up_and_the_others_finish(executor: Executor, tmp_path: Path) -> None:
    specs = [
        spec(tmp_path, "bad", "fails"),
        spec(tmp_path, "nan", "is a failure"),
        spec(tmp_path, "empty", "leaves nothing"),
        spec(tmp_path, "waited", after="bad"),
        *(spec(tmp_path, f"good{number}") for number in range(3)),
    ]
    summary = drive(tmp_path, executor, specs)
    assert sorted(summary.done) == ["good0", "good1", "good2", "waited"]
    assert summary.failed["bad"] == "its process ended with exit code 1: cannot do it"
    assert summary.failed["nan"] == "failed: loss is nan"
    assert "it ended well but left no records/empty.json" in summary.failed["empty"]
    tries = starts(tmp_path)
    assert [tries.count(key) for key in ("bad", "nan", "empty")] == [3, 1, 3], "a failure as a result is not repeated"
    given_up = [line for line in (tmp_path / "notes.txt").read_text().split("\n") if line.startswith("gave up")]
    assert len(given_up) == 2
    assert not is_done(tmp_path, "bad")


def test_a_damaged_end_is_no_end(executor: Executor, tmp_path: Path) -> None:
    specs = [spec(tmp_path, key) for key in ("cut", "emptied", "whole")]
    drive(tmp_path, executor, specs)
    (folder_of(tmp_path, "cut") / "DONE").write_text('{"key": "cu')
    (tmp_path / "records/emptied.json").write_text("")
    summary = drive(tmp_path, executor, specs)
    assert (sorted(summary.done), summary.skipped) == (["cut", "emptied"], ["whole"])


def test_a_run_whose_files_its_followers_cannot_use_is_made_again(executor: Executor, tmp_path: Path) -> None:
    """Weights damaged in their size, which `DONE` does not notice."""
    first = dataclasses.replace(spec(tmp_path, "first"), outputs=("records/first.json", "weights"))
    (tmp_path / "weights").write_text("dam")
    drive(tmp_path, executor, [first])
    followers = [spec(tmp_path, f"follower{number}", "reads weights", "first") for number in range(2)]
    mended = (*first.call[:-1], "writes weights")
    summary = drive(tmp_path, executor, [dataclasses.replace(first, call=mended), *followers])
    assert sorted(summary.done) == ["first", "follower0", "follower1"]
    assert (summary.skipped, summary.failed) == ([], {})
    assert starts(tmp_path).count("first") >= 2


def test_an_output_of_the_same_size_from_another_run_is_no_end(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records/one.json").write_text('{"run_key": "aaaa"}')
    assert write_done(tmp_path, "one", ["records/one.json"]) == ""
    assert is_done(tmp_path, "one")
    (tmp_path / "records/one.json").write_text('{"run_key": "bbbb"}')
    assert not is_done(tmp_path, "one")


def test_what_is_wrong_with_the_files_of_a_run(tmp_path: Path) -> None:
    """Byproducts may go without the run being run again, but whoever copies them is told."""
    for name in ("first", "second", "weights"):
        (tmp_path / name).write_text(name)
    assert damaged(tmp_path, "one") == {"sweep/one/DONE": "missing"}
    assert write_done(tmp_path, "one", ["first", "second"], ["weights", "not left"]) == ""
    assert damaged(tmp_path, "one") == {}
    (tmp_path / "first").write_text("tsrif")
    (tmp_path / "second").write_text("sec")
    (tmp_path / "weights").unlink()
    assert damaged(tmp_path, "one") == {
        "first": "damaged since its run ended",
        "second": "it has 3 bytes, its run left 6",
        "weights": "missing",
    }
    (folder_of(tmp_path, "one") / "DONE").write_text('{"key": "on')
    assert damaged(tmp_path, "one") == {"sweep/one/DONE": "not readable"}
    assert withdraw(tmp_path, "one")
    assert not withdraw(tmp_path, "one")


def test_byproducts_may_go(tmp_path: Path) -> None:
    for name in ("first", "weights"):
        (tmp_path / name).write_text(name)
    write_done(tmp_path, "one", ["first"], ["weights"])
    (tmp_path / "weights").unlink()
    assert is_done(tmp_path, "one")


def test_a_head_that_is_killed_loses_nothing(name: str, address: str, tmp_path: Path) -> None:
    runs = json.dumps([["before0", "works"], ["before1", "works"], ["under_way", "waits"], ["after", "works"]])
    command = [sys.executable, "-m", "tests.sweep.fakes", str(tmp_path), name, address, runs]
    head = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    wait_for(lambda: "under_way" in starts(tmp_path) and is_done(tmp_path, "before0"))
    head.send_signal(signal.SIGKILL)
    head.wait()
    heir = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    time.sleep(0.5)
    (tmp_path / "go").touch()
    assert heir.wait(60) == 0
    assert table(tmp_path) == ["after", "before0", "before1", "under_way"]
    assert all(is_done(tmp_path, key) for key in table(tmp_path))
    assert starts(tmp_path).count("before0") == 1, "what was done is not run again"


def somebody_waits_for(lock: Path) -> bool:
    """Whether a process is blocked at this lock, as Linux lists it behind the one that holds it."""
    waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(f":{lock.stat().st_ino} " in line for line in waiting)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to this"
        time.sleep(0.02)
