"""`ltbench sweep`: turns what is left of a suite into runs for an executor."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from harness.base.files import locked
from harness.base.progress import reporter
from harness.records.runs import stage_files
from harness.running.cells import Folders
from harness.running.plans import Outcome, Plan, Run, Settings, fail, first_folder, make_plan
from harness.running.sweep.contract import Spec, is_done
from harness.running.sweep.executors import Options, Share, open_executor
from harness.running.sweep.head import Head, Rules
from harness.running.sweep.one import command


def sweep(suite: str, settings: Settings, rules: Rules, options: Options) -> Outcome:
    """Runs what is left of a suite; opens an executor if anything is.

    Raises:
        UserError: as `make_plan` says; another command is at work in the folder; the executor cannot be had.
    """
    out = settings.out.resolve()
    settings = dataclasses.replace(settings, out=out)
    with locked(out), reporter() as progress, contextlib.ExitStack() as stack:
        # The head asks `DONE` what is left, so the plan does too: a record alone may be of a run that was killed.
        plan = make_plan(suite, settings, lambda run: is_done(out, run.folder))
        left_out = len(plan.left_out)
        if not plan.left:
            return Outcome(left_out=left_out)
        executor, share = open_executor(options, settings, out)
        stack.callback(executor.close)
        specs = specs_of(plan, out, share)
        runs = {spec.key: run for spec, run in specs}
        head = Head(out, executor, rules, progress.note, lambda key, reason: fail(runs[key], out, reason))
        summary = head.drive([spec for spec, _ in specs])
    made = sum(runs[key].stage != "train" for key in (*summary.done, *summary.failed))
    return Outcome(made, len(summary.failed), plan.left - made, left_out)


def specs_of(plan: Plan, out: Path, share: Share) -> list[tuple[Spec, Run]]:
    """The plan's runs, each with what an executor needs to know about it."""
    return [(_spec(run, plan.folders[run], out, share), run) for run in plan.waiting]


def _spec(run: Run, folders: Folders, out: Path, share: Share) -> Spec:
    byproducts = list[Path]()
    if run.stage == "train":
        outputs = [*stage_files(folders.first, run.seed).values()]
    else:
        outputs = [folders.records / f"seed{run.seed}{suffix}" for suffix in (".json", ".npz", ".run.json")]
        byproducts += stage_files(folders.last, run.seed).values()
    return Spec(
        key=run.folder,
        argv=command(run, out, share.device, share.at_once),
        outputs=tuple(path.relative_to(out).as_posix() for path in outputs),
        byproducts=tuple(path.relative_to(out).as_posix() for path in byproducts),
        after="" if run.stage == "train" else first_folder(run.first_key),
        title=str(run),
        length=run.length,
        gpus=share.gpus,
    )
