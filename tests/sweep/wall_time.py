"""How long a suite takes on a number of GPUs: a formula, and a simulation of the same queue that checks it.

`python -m tests.sweep.wall_time` prints both for the suite `large` on 1 to 64 GPUs. Hours of a run are
assumptions until somebody has measured them, and are named as such on the command line's defaults and in
`docs/SCALING.md`.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from harness.base.errors import UserError
from harness.spec.recipes import resolve
from harness.spec.suites import entries_for, get_suite
from harness.splits.split_names import parse_split_name

GPUS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Job:
    """A run: seconds on its slot, and the place in the list of the one that it waits for."""

    seconds: float
    after: int | None = None


@dataclass(frozen=True)
class Costs:
    """What a run costs besides its work, in seconds.

    Attributes:
        start: on its slot: the process, torch, the data's index.
        head: on the head, which does one thing at a time.
        last: on the head at the end for each run: its part of the table and the report.
    """

    start: float
    head: float
    last: float


def formula(jobs: Sequence[Job], slots: int, costs: Costs) -> float:
    """Seconds by the bounds that hold for any order: the work shared out, the longest chain, the head; with the end.

    A list schedule takes at most the first two together, and in practice hardly more than the larger one.
    """
    work = sum(job.seconds + costs.start for job in jobs) / slots
    return max(work, _longest_chain(jobs, costs), costs.head * len(jobs)) + costs.last * len(jobs)


def _longest_chain(jobs: Sequence[Job], costs: Costs) -> float:
    ends: list[float] = []
    for job in jobs:  # what a job waits for stands before it
        ends.append((ends[job.after] if job.after is not None else 0.0) + costs.start + job.seconds)
    return max(ends, default=0.0)


def simulate(jobs: Sequence[Job], slots: int, costs: Costs) -> float:
    """Seconds of the queue itself, event by event: the longest ready job goes to a free slot once the head is free."""
    followers: dict[int, list[int]] = {}
    for index, job in enumerate(jobs):
        if job.after is not None:
            followers.setdefault(job.after, []).append(index)
    ready = [(-job.seconds, index) for index, job in enumerate(jobs) if job.after is None]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []  # by the time at which they end
    now = head_free = 0.0
    while ready or running:
        while ready and len(running) < slots:
            _, index = heapq.heappop(ready)
            head_free = max(now, head_free) + costs.head
            heapq.heappush(running, (head_free + costs.start + jobs[index].seconds, index))
        now, index = heapq.heappop(running)
        for follower in followers.get(index, []):
            heapq.heappush(ready, (-jobs[follower].seconds, follower))
    return now + costs.last * len(jobs)


def jobs_of(suite_name: str, images: dict[str, int], rate: float) -> list[Job]:
    """The runs of a suite, first stages shared as a sweep shares them.

    Args:
        images: training images of each data set.
        rate: training images per second of a whole run, forward and backward, on one slot; with a frozen backbone three
            times as many.
    """
    suite, jobs, firsts = get_suite(suite_name), list[Job](), dict[tuple[str, str, int], int]()
    for split in suite.splits:
        dataset = parse_split_name(split).dataset
        for entry in entries_for(suite, dataset):
            try:
                cell = resolve(entry, dataset)
            except UserError:  # no recipe on this track: it is no run of the sweep either
                continue
            train, second = cell.recipe.train.for_images(images[dataset]), cell.recipe.finetune
            for seed in suite.seeds:
                key = split, repr(cell.first_stage_identity()), seed
                if key not in firsts:
                    firsts[key] = len(jobs)
                    jobs.append(Job(train.epochs * images[dataset] / rate))
                epochs = second.for_images(images[dataset]).epochs if second else 0
                jobs.append(Job(epochs * images[dataset] / rate / 3, firsts[key]))
    return jobs


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(prog="tests.sweep.wall_time", description=__doc__)
    parser.add_argument("--rate", type=float, default=800.0, help="images per second of a slot (assumed)")
    parser.add_argument("--start", type=float, default=30.0, help="seconds before a run's first step (assumed)")
    parser.add_argument("--head", type=float, default=0.05, help="seconds of the head for each run")
    parser.add_argument("--last", type=float, default=0.01, help="seconds of table and report for each run")
    given = parser.parse_args(arguments)
    costs = Costs(given.start, given.head, given.last)
    jobs = jobs_of("large", LARGE, given.rate)
    print(f"{len(jobs)} runs, {sum(job.seconds for job in jobs) / 3600:.0f} hours on one slot\n")
    print("| GPUs | formula, h | simulation, h | speed-up |\n| ---: | ---: | ---: | ---: |")
    alone = simulate(jobs, 1, costs)
    for slots in GPUS:
        simulated = simulate(jobs, slots, costs)
        print(
            f"| {slots} | {formula(jobs, slots, costs) / 3600:.1f} | {simulated / 3600:.1f} | {alone / simulated:.1f} |"
        )


LARGE = {"imagenet-lt": 115_846, "places-lt": 62_500, "inat2018": 437_513}  # training images of the official lists

if __name__ == "__main__":
    main()
