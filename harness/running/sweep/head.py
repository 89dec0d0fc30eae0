"""The head of a sweep: gives runs to an executor, tries again what was lost, and asks the disk what is done."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.base.processes import Exited
from harness.running.sweep import contract
from harness.running.sweep.contract import FAILED, UNUSABLE, Ended, Executor, Spec

Note = Callable[[str], None]
GaveUp = Callable[[str, str], object]
PATIENCE = 60.0  # seconds between two looks at an executor that says nothing


@dataclass(frozen=True)
class Rules:
    """How often a run is tried, and how long the head waits before it tries again: twice as long each time."""

    attempts: int = 3
    back_off: float = 10.0


@dataclass
class Summary:
    """What became of the runs."""

    done: list[str] = field(default_factory=list)  # by this head
    skipped: list[str] = field(default_factory=list)  # done before
    failed: dict[str, str] = field(default_factory=dict)  # key -> reason


class Head:
    """Knows nothing that is not on disk: if it is killed, the same command takes its place."""

    def __init__(self, root: Path, executor: Executor, rules: Rules, note: Note, gave_up: GaveUp) -> None:
        """`gave_up` is called with the key of a run that has no attempt left and the reason.

        The runs that waited for it are started afterwards.
        """
        self._root, self._executor, self._rules, self._note, self._gave_up = root, executor, rules, note, gave_up
        self._ready: list[Spec] = []
        self._waiting: defaultdict[str, list[Spec]] = defaultdict(list)
        self._queue: list[tuple[float, int, Spec]] = []  # a heap: the longest go first, equal ones as they came
        self._later: list[tuple[float, int, Spec]] = []  # a heap by the time at which they are tried again
        self._busy: dict[str, Spec] = {}
        self._tries: Counter[str] = Counter()
        self._specs: dict[str, Spec] = {}
        self._made_again: set[str] = set()  # finished runs under way once more, for those that wait for them
        self._ids = itertools.count()
        self.summary = Summary()

    def drive(self, specs: Sequence[Spec]) -> Summary:
        """Runs them all; returns when each is done or has been given up."""
        self._specs = {spec.key: spec for spec in specs}
        for spec in specs:
            (self._waiting[spec.after] if spec.after in self._specs else self._ready).append(spec)
        while True:
            self._start()
            if not (self._busy or self._queue or self._later):
                return self.summary
            for ended in self._wait():
                self._judge(ended)

    def _start(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        while self._ready:  # what is skipped makes others ready
            spec = self._ready.pop()
            if contract.is_done(self._root, spec.key):
                self.summary.skipped.append(spec.key)
                self._ready += self._waiting.pop(spec.key, [])
            else:
                heapq.heappush(self._queue, (-spec.length, next(self._ids), spec))
        while self._queue and (room := self._executor.room()) > 0:
            batch = [heapq.heappop(self._queue) for _ in range(min(room, len(self._queue)))]
            if not self._submit([spec for _, _, spec in batch]):
                for waiting in batch:
                    heapq.heappush(self._queue, waiting)
                return

    def _submit(self, specs: Sequence[Spec]) -> bool:
        for spec in specs:
            contract.write_spec(self._root, spec)
        if not self._executor.submit(specs):
            return False
        self._tries.update(spec.key for spec in specs)
        self._busy |= {spec.key: spec for spec in specs}
        return True

    def _wait(self) -> list[Ended]:
        due = self._later[0][0] - time.monotonic() if self._later else PATIENCE
        timeout = min(max(0.0, due), PATIENCE)
        if self._busy:
            return self._executor.ended(timeout)
        time.sleep(timeout)
        return []

    def _judge(self, ended: Ended) -> None:
        spec = self._busy.pop(ended.key)
        if contract.is_done(self._root, spec.key):
            self.summary.done.append(spec.key)
            self._over(spec, "done")
            return
        reason, tries = self._reason(ended), self._tries[spec.key]
        mended = ended.code == UNUSABLE and self._make_again(spec.after)
        if ended.code != FAILED and tries < self._rules.attempts:
            self._try_again(spec, reason, mended)
            return
        self.summary.failed[spec.key] = reason
        if ended.code != FAILED:
            self._gave_up(spec.key, f"{reason} ({tries} attempts)")
        self._over(spec, f"failed: {reason}")

    def _try_again(self, spec: Spec, reason: str, mended: bool) -> None:
        tries = self._tries[spec.key]
        delay = self._rules.back_off * 2 ** (tries - 1)
        when = f"after {self._specs[spec.after].title or spec.after}, once more" if mended else f"in {delay:g} s"
        self._note(f"{spec.title or spec.key}: {reason}; attempt {tries + 1} {when}")
        if mended:
            self._waiting[spec.after].append(spec)
        else:
            heapq.heappush(self._later, (time.monotonic() + delay, next(self._ids), spec))

    def _make_again(self, key: str) -> bool:
        """Repeats a run whose files its follower cannot use; returns whether it is under way.

        `DONE` knows sizes only; the run itself checks bytes, keeps what is whole, and makes the rest again.
        """
        if key in self._made_again:
            return True
        if key not in self._specs or not contract.withdraw(self._root, key):
            return False
        for ended in (self.summary.done, self.summary.skipped):
            if key in ended:
                ended.remove(key)
        self._tries[key] = 0
        self._made_again.add(key)
        self._ready.append(self._specs[key])
        return True

    def _over(self, spec: Spec, how: str) -> None:
        self._made_again.discard(spec.key)
        count = len(self.summary.done) + len(self.summary.skipped) + len(self.summary.failed)
        self._note(f"[{count}/{len(self._specs)}] {spec.title or spec.key}: {how}")
        self._ready += self._waiting.pop(spec.key, [])

    def _reason(self, ended: Ended) -> str:
        if ended.code is None:
            return ended.reason
        said = contract.last_line(contract.folder_of(self._root, ended.key))
        if ended.code == FAILED:
            return said or "it failed"
        how = Exited(ended.code).cause
        return f"{how}: {said}" if said else how
