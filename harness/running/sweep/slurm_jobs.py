"""The executor `slurm`: what is ready together becomes a job array, by submitit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.running.sweep.attempt import supervise
from harness.running.sweep.contract import FOLDER, Ended, Spec, folder_of

ARRAY = 1000  # jobs; Slurm takes 1,001 in an array unless it is told otherwise
POLL = 0.1  # seconds; submitit itself asks Slurm far less often
BACK_OFF, LONGEST = 30.0, 600.0  # seconds after a refused submission, twice as long each time, and never longer
DEFAULTS = {"time": "1440", "array_parallelism": "256"}  # minutes; jobs of an array that run at once
SAFE = (
    "account", "array_parallelism", "cluster", "constraint", "cpus_per_task", "exclude", "gpus_per_node", "mem",
    "nodelist", "partition", "qos", "time",
)  # fmt: skip
NUMBERS = ("array_parallelism", "cpus_per_task", "gpus_per_node", "time")


def parse_options(texts: Sequence[str]) -> dict[str, str]:
    """`--slurm KEY=VALUE` by key. None of the keys lets text through to a shell; submitit quotes their values.

    Raises:
        UserError: another form, an unknown key, or no number where one belongs.
    """
    found = dict(DEFAULTS)
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in SAFE:
            raise UserError(f"--slurm {text}: expected KEY=VALUE with one of the keys {', '.join(SAFE)}")
        if not value.isprintable() or (key in NUMBERS and not value.isdecimal()):
            raise UserError(f"--slurm {text}: expected {'a whole number' if key in NUMBERS else 'plain text'}")
        found[key] = value
    return found


class SlurmExecutor:
    """submitit submits and watches; with `cluster=local` its jobs are processes on this machine."""

    def __init__(self, submitit: Any, root: Path, options: Mapping[str, str], local_jobs: int = 1) -> None:
        """`local_jobs`: how many run at once with `cluster=local`, which has no queue of its own.

        Raises:
            UserError: Slurm is not on this machine.
        """
        self._submitit, self._root = submitit, root
        self._options = {key: int(value) if key in NUMBERS else value for key, value in options.items()}
        cluster = self._options.pop("cluster", "slurm")
        self._at_once = local_jobs if cluster == "local" else None
        try:
            self._executor = submitit.AutoExecutor(folder=root / FOLDER / "submitit", cluster=cluster)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"--executor slurm: {' '.join(str(error).split())}") from None
        self._queue: deque[Spec] = deque()
        self._under_way: dict[str, tuple[str, Any]] = {}  # job -> key of its run
        self._array, self._back_off = ARRAY, BACK_OFF
        self._refused_until: float | None = None  # when to try again

    def submit(self, specs: Sequence[Spec]) -> None:
        """Queues them.

        Raises:
            UserError: Slurm refuses them while none of ours is under way.
        """
        self._queue.extend(specs)
        self._hand_over()

    def _hand_over(self) -> None:
        """Submits what is queued; what is refused while others run waits, since a limit on jobs is a matter of time."""
        if self._refused_until and time.monotonic() < self._refused_until:
            return
        while batch := self._next_array():
            refusal = self._submit_array(batch)
            if refusal and not self._under_way:
                raise UserError(f"--executor slurm: its jobs were refused: {refusal}")
            if refusal:
                self._queue.extendleft(reversed(batch))
                self._array = max(1, len(batch) // 2)
                self._refused_until = time.monotonic() + self._back_off
                self._back_off = min(2 * self._back_off, LONGEST)
                return
            self._array, self._back_off, self._refused_until = min(2 * self._array, ARRAY), BACK_OFF, None

    def _next_array(self) -> list[Spec]:
        """The first of the queue that are alike, as many as there is room for."""
        room = self._array if self._at_once is None else min(self._array, self._at_once - len(self._under_way))
        batch: list[Spec] = []
        while self._queue and len(batch) < room and (not batch or _shape(self._queue[0]) == _shape(batch[0])):
            batch.append(self._queue.popleft())
        return batch

    def _submit_array(self, specs: Sequence[Spec]) -> str:
        """Why Slurm refuses them, or nothing."""
        self._executor.update_parameters(**self._parameters(*_shape(specs[0])))
        try:
            jobs = self._executor.map_array(supervise, [str(folder_of(self._root, spec.key)) for spec in specs])
        except (self._submitit.core.utils.FailedJobError, self._submitit.core.utils.FailedSubmissionError) as error:
            return " ".join(str(error).split())[:300] or type(error).__name__
        self._under_way |= {job.job_id: (spec.key, job) for spec, job in zip(specs, jobs, strict=True)}
        return ""

    def _parameters(self, cpus: int, gpus: float) -> dict[str, Any]:
        given = {f"slurm_{key}": value for key, value in self._options.items()}
        limit = given.pop("slurm_time")
        shape = {"slurm_cpus_per_task": cpus, "slurm_gpus_per_node": -int(-gpus // 1)}  # whole GPUs
        if not shape["slurm_gpus_per_node"]:
            del shape["slurm_gpus_per_node"]
        return {"name": "ltbench", "timeout_min": limit, **shape, **given}

    def ended(self, timeout: float) -> list[Ended]:
        """Those that are over, at least one unless the time is."""
        until = time.monotonic() + timeout
        while True:
            over = [number for number, (_, job) in self._under_way.items() if job.done()]
            now = time.monotonic()
            if over or now >= until or (self._refused_until and now >= self._refused_until):
                break
            time.sleep(POLL)
        found = [self._ended(number) for number in over]
        self._hand_over()
        return found

    def _ended(self, number: str) -> Ended:
        key, job = self._under_way.pop(number)
        try:
            return Ended(key, job.result())
        except (self._submitit.core.utils.UncompletedJobError, self._submitit.core.utils.FailedJobError):
            return Ended(key, None, f"its job {job.job_id} ended without a result ({job.state})")

    def close(self) -> None:
        """Cancels the jobs."""
        for _, job in self._under_way.values():
            job.cancel(check=False)


def _shape(spec: Spec) -> tuple[int, float]:
    """What the jobs of an array have in common."""
    return spec.cpus, spec.gpus
