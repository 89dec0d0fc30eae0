"""What only Slurm does: refuse jobs (with an engine made for the test), and lose a node."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.base.errors import UserError
from harness.running.sweep import slurm_jobs
from harness.running.sweep.contract import Spec
from harness.running.sweep.head import Summary
from harness.running.sweep.slurm_jobs import SlurmExecutor, parse_options
from tests.sweep.fakes import drive, spec, starts, table
from tests.sweep.slurm_cluster import slurm_cluster, why_there_is_none
from tests.sweep.test_contract import ROOT, wait_for

NO_CLUSTER = why_there_is_none()


class RefusedError(Exception):
    """As submitit raises it."""


class Job:
    """Ends when it is told to."""

    def __init__(self, number: str) -> None:
        self.job_id, self.state, self.over, self.cancelled = number, "RUNNING", False, False

    def done(self) -> bool:
        return self.over

    def result(self) -> int:
        return 0

    def cancel(self, check: bool) -> None:
        self.cancelled = True


class Cluster:
    """Takes a number of jobs at once, an array as a whole or not at all."""

    def __init__(self, limit: int) -> None:
        self.limit, self.jobs, self.arrays = limit, list[Job](), list[int]()
        names = "FailedJobError", "FailedSubmissionError", "UncompletedJobError"
        self.core = SimpleNamespace(utils=SimpleNamespace(**dict.fromkeys(names, RefusedError)))

    def AutoExecutor(self, **_: Any) -> Cluster:  # noqa: N802 - submitit's name
        return self

    def update_parameters(self, **_: Any) -> None:
        """Nothing depends on them here."""

    def map_array(self, _function: Any, folders: list[str]) -> list[Job]:
        if sum(not job.over for job in self.jobs) + len(folders) > self.limit:
            raise RefusedError("QOSMaxSubmitJobPerUserLimit")
        self.arrays.append(len(folders))
        made = [Job(f"{len(self.arrays)}_{number}") for number in range(len(folders))]
        self.jobs += made
        return made


def specs(*names: str) -> list[Spec]:
    return [Spec(name, ("true",), (name,)) for name in names]


def test_refused_jobs_wait_while_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_jobs, "BACK_OFF", 0.01)
    monkeypatch.setattr(slurm_jobs, "POLL", 0.001)
    cluster = Cluster(limit=4)
    executor = SlurmExecutor(cluster, tmp_path, parse_options([]))
    assert executor.submit(specs("a", "b", "c"))
    assert not executor.submit(specs("d", "e", "f", "g"))
    assert cluster.arrays == [3], "four more are too many; none of the three is cancelled"
    assert executor.ended(0.05) == []
    ended, queue = list[str](), list("defg")
    for _ in range(1000):
        for job in cluster.jobs:
            job.over = True
        ended += [end.key for end in executor.ended(0.05)]
        batch = queue[: executor.room()]
        if batch and executor.submit(specs(*batch)):
            queue = queue[len(batch) :]
        if len(ended) == 7:
            break
    assert sorted(ended) == list("abcdefg")
    assert not any(job.cancelled for job in cluster.jobs)


def test_jobs_refused_with_none_under_way_are_one_line(tmp_path: Path) -> None:
    executor = SlurmExecutor(Cluster(limit=0), tmp_path, parse_options(["partition=none"]))
    with pytest.raises(UserError, match="its jobs were refused: QOSMaxSubmitJobPerUserLimit"):
        executor.submit(specs("a"))


@pytest.mark.skipif(bool(NO_CLUSTER), reason=NO_CLUSTER)
def test_a_node_is_lost_during_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm itself, two nodes; the run of the one that is lost is done on the other."""
    submitit = pytest.importorskip("submitit", reason="the extra 'slurm' (submitit) is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with slurm_cluster(tmp_path / "cluster") as cluster:
        executor = SlurmExecutor(submitit, tmp_path, parse_options(["partition=main"]))
        specs = [spec(tmp_path, f"waiting{number}", "waits") for number in range(2)]
        specs += [spec(tmp_path, f"quick{number}") for number in range(2)]
        found: list[Summary] = []
        head = threading.Thread(target=lambda: found.append(drive(tmp_path, executor, specs)))
        head.start()
        wait_for(lambda: {"waiting0", "waiting1"} <= set(starts(tmp_path)))
        cluster.remove("n2")
        (tmp_path / "go").touch()
        head.join(120)
        executor.close()
    assert len(found) == 1, "it goes on without the node"
    assert len(found[0].done) == len(table(tmp_path)) == 4
    assert sorted(starts(tmp_path).count(f"waiting{number}") for number in range(2)) == [1, 2]
