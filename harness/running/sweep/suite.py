"""`ltbench sweep`: turns what is left of a suite into runs for an executor."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from pathlib import Path

from harness.base.errors import UserError
from harness.base.files import locked
from harness.base.progress import Reporter, reporter
from harness.records.runs import stage_files
from harness.running import plans
from harness.running.cells import Folders, forget_features
from harness.running.plans import OtherRunError, Outcome, Plan, Run, Settings, first_folder
from harness.running.sweep.contract import FAILED, MISSING, OTHER_RUN, UNUSABLE, Spec, damaged, is_done, withdraw
from harness.running.sweep.executors import Options, Share, open_executor
from harness.running.sweep.head import Head, Rules

WORK = "harness.running.sweep.suite:work"


def sweep(suite: str, settings: Settings, rules: Rules, options: Options, *, published: bool = False) -> Outcome:
    """Runs what is left of a suite; opens an executor if anything is.

    Args:
        published: the results go on to `results/`. So runs of which a byte has changed since they ended are left too.

    Raises:
        UserError: as `make_plan` says; another command is at work in the folder; the executor cannot be had.
    """
    out = settings.out.resolve()
    settings = dataclasses.replace(settings, out=out)
    with locked(out), reporter() as progress, contextlib.ExitStack() as stack:
        # The head asks `DONE` what is left, so the plan does too: a record alone may be of a run that was killed.
        ended = functools.partial(_is_whole, out, progress) if published else lambda run: is_done(out, run.folder)
        plan = plans.make_plan(suite, settings, ended)
        left_out = len(plan.left_out)
        if not plan.left:
            return Outcome(left_out=left_out)
        executor, share = open_executor(options, settings, out)
        stack.callback(executor.close)
        specs = specs_of(plan, out, share)
        runs = {spec.key: run for spec, run in specs}
        head = Head(out, executor, rules, progress.note, lambda key, reason: plans.fail(runs[key], out, reason))
        summary = head.drive([spec for spec, _ in specs])
        made = sum(runs[key].stage != "train" for key in (*summary.done, *summary.failed))
        if made == plan.left:
            forget_features(out)
    return Outcome(made, len(summary.failed), plan.left - made, left_out)


def _is_whole(out: Path, progress: Reporter, run: Run) -> bool:
    """Whether the run and its first stage left what is there; what is damaged is removed, and made again."""
    found = damaged(out, first_folder(run.first_key)) | damaged(out, run.folder)
    for name, what in found.items():
        if what != MISSING:
            progress.note(f"{out / name}: {what}; made again")
            (out / name).unlink()  # or the next attempt would take what is left for whole
    if found:
        withdraw(out, run.folder)
    return not found


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
        call=(WORK, json.dumps(dataclasses.asdict(run)), str(out), share.device, str(share.at_once)),
        outputs=tuple(path.relative_to(out).as_posix() for path in outputs),
        byproducts=tuple(path.relative_to(out).as_posix() for path in byproducts),
        after="" if run.stage == "train" else first_folder(run.first_key),
        title=str(run),
        length=0.0 if run.again else run.length,  # those go last
        gpus=share.gpus,
    )


def work(given: str, out: str, device: str, at_once: str) -> int:
    """One stage of a run, as campaigns do it, in the process of its attempt.

    Returns:
        The exit code: 0, `FAILED` if the failure is the result, or another that asks for a new attempt.
    """
    value = json.loads(given)
    run = Run(**value | {"overrides": tuple(value["overrides"])})
    try:
        with reporter() as progress:
            outcome = plans.do(run, Path(out), plans.workplace(Path(out), device, int(at_once), progress))
    except UserError as error:  # other code than planned: another machine may have it; or data that cannot be read
        print(f"error: {error}", file=sys.stderr)
        return OTHER_RUN if isinstance(error, OtherRunError) else UNUSABLE
    print(outcome.how_it_ended)
    return FAILED if outcome.status == "failed" else 0
