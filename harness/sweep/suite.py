"""`ltbench sweep`: the runs of a suite as an executor takes them, and what is left of them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.files import locked
from harness.plans import Plan, Run, Settings, fail, make_plan
from harness.progress import reporter
from harness.sweep.contract import Executor, Spec
from harness.sweep.head import Head, Rules
from harness.sweep.one import command


@dataclass(frozen=True)
class Share:
    """What a run gets of a machine.

    Attributes:
        device: as the command line of a run names it.
        at_once: runs that share the device, this one included.
    """

    device: str
    at_once: int = 1

    @property
    def gpus(self) -> float:
        """The part of a GPU."""
        return 0.0 if self.device == "cpu" else 1 / self.at_once


Opened = tuple[Executor, Share]


@dataclass
class Outcome:
    """What a sweep came to."""

    made: int = 0  # records, those of failed runs included
    failed: dict[str, str] = field(default_factory=dict)  # run -> reason
    left_out: int = 0  # splits without data, entries without a recipe


def sweep(suite: str, settings: Settings, rules: Rules, open_executor: Callable[[Path], Opened]) -> Outcome:
    """Runs what is left of a suite.

    Args:
        open_executor: called with the sweep's folder once it is known that there is something to run.

    Raises:
        UserError: as `make_plan` says; another command is at work in the folder; the executor cannot be had.
    """
    out = settings.out.resolve()
    settings = dataclasses.replace(settings, out=out)
    with locked(out), reporter() as progress, contextlib.ExitStack() as stack:
        plan = make_plan(suite, settings)
        records, left_out = plan.left, len(plan.left_out)
        if not records:
            return Outcome(left_out=left_out)
        executor, share = open_executor(out)
        stack.callback(executor.close)
        runs = {spec.key: (spec, run) for spec, run in specs_of(plan, out, share)}

        def gave_up(spec: Spec, reason: str) -> None:
            fail(runs[spec.key][1], out, reason)

        head = Head(out, executor, rules, progress.note, gave_up)
        summary = head.drive([spec for spec, _ in runs.values()])
    failed = {str(runs[key][1]): reason for key, reason in summary.failed.items()}
    return Outcome(records, failed, left_out)


def specs_of(plan: Plan, out: Path, share: Share) -> list[tuple[Spec, Run]]:
    """The plan's runs, each with what an executor needs to know about it."""
    found = [(_spec(run, "", plan, out, share), run) for run in plan.ready]
    for key, runs in plan.after.items():
        found += [(_spec(run, run_folder(plan.firsts[key].run_key, "train"), plan, out, share), run) for run in runs]
    return found


def _spec(run: Run, after: str, plan: Plan, out: Path, share: Share) -> Spec:
    folders, seed = plan.folders[run], f"seed{run.seed}"
    if run.stage == "train":
        stem = folders.first
        outputs = [stem / "predictions" / f"{seed}.json", stem / "predictions" / f"{seed}.npz"]
        outputs += [stem / "checkpoint" / f"{seed}.safetensors", stem / "costs" / f"{seed}.json"]
    else:
        outputs = [folders.records / f"{seed}{suffix}" for suffix in (".json", ".npz", ".run.json")]
    return Spec(
        key=run_folder(run.run_key, run.stage, run.entry),
        argv=command(run, out, share.device, share.at_once),
        outputs=tuple(path.relative_to(out).as_posix() for path in outputs),
        after=after,
        title=str(run),
        length=plan.lengths[run],
        gpus=share.gpus,
    )


def run_folder(run_key: str, stage: str, entry: str = "") -> str:
    """Key of a run: a first stage is of all that share it, a record of its entry alone."""
    return f"{run_key}-{'train' if stage == 'train' else entry}"
