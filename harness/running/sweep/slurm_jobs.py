"""The executor `slurm`: what is ready together becomes a job array, by submitit."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import UserError, reason
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
            raise UserError(f"--executor slurm: {reason(error)}") from None
        self._under_way: dict[str, tuple[str, Any]] = {}  # job -> key of its run
        self._array, self._back_off, self._refused_until = ARRAY, BACK_OFF, 0.0

    def room(self) -> int:
        """An array, of half the size after each refusal; none at all until it is time to try again."""
        if time.monotonic() < self._refused_until:
            return 0
        return self._array if self._at_once is None else min(self._array, self._at_once - len(self._under_way))

    def submit(self, specs: Sequence[Spec]) -> bool:
        """Submits an array; it may be refused while others are under way, since a limit on jobs is a matter of time.

        Raises:
            UserError: Slurm refuses it while none of ours is under way.
        """
        given = {f"slurm_{key}": value for key, value in self._options.items() if key != "time"}
        if gpus := max(spec.gpus for spec in specs):
            given.setdefault("slurm_gpus_per_node", math.ceil(gpus))
        given.setdefault("slurm_cpus_per_task", 1)
        self._executor.update_parameters(name="ltbench", timeout_min=self._options["time"], **given)
        try:
            jobs = self._executor.map_array(supervise, [str(folder_of(self._root, spec.key)) for spec in specs])
        except (self._submitit.core.utils.FailedJobError, self._submitit.core.utils.FailedSubmissionError) as error:
            if not self._under_way:
                raise UserError(f"--executor slurm: its jobs were refused: {reason(error)[:300]}") from None
            self._array, self._refused_until = max(1, len(specs) // 2), time.monotonic() + self._back_off
            self._back_off = min(2 * self._back_off, LONGEST)
            return False
        self._under_way |= {job.job_id: (spec.key, job) for spec, job in zip(specs, jobs, strict=True)}
        self._array, self._back_off = min(2 * self._array, ARRAY), BACK_OFF
        return True

    def ended(self, timeout: float) -> list[Ended]:
        """Those that are over, at least one unless the time is, or it is time to offer refused ones again."""
        now = time.monotonic()
        until = min(now + timeout, self._refused_until if self._refused_until > now else math.inf)
        while True:
            over = [number for number, (_, job) in self._under_way.items() if job.done()]
            if over or time.monotonic() >= until:
                return [self._ended(number) for number in over]
            time.sleep(POLL)

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
