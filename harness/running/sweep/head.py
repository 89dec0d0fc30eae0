"""The head of a sweep: gives runs to an executor, tries again what was lost, and asks the disk what is done."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.running.sweep.contract import (
    FAILED,
    UNUSABLE,
    Ended,
    Executor,
    Spec,
    done_files,
    folder_of,
    last_line,
    withdraw,
    write_spec,
)

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

    def __init__(
        self,
        root: Path,
        executor: Executor,
        rules: Rules,
        note: Callable[[str], None],
        gave_up: Callable[[Spec, str], None],
    ) -> None:
        """`gave_up` is called for a run that has no attempt left, before those that waited for it are started."""
        self._root, self._executor, self._rules, self._note, self._gave_up = root, executor, rules, note, gave_up
        self._ready: list[Spec] = []
        self._waiting: defaultdict[str, list[Spec]] = defaultdict(list)
        self._later: list[tuple[float, int, Spec]] = []  # a heap by the time at which they are tried again
        self._busy: dict[str, Spec] = {}
        self._tries: Counter[str] = Counter()
        self._specs: dict[str, Spec] = {}
        self._made_again: set[str] = set()  # finished runs under way once more, for those that wait for them
        self._ids, self._total = itertools.count(), 0
        self.summary = Summary()

    def drive(self, specs: Sequence[Spec]) -> Summary:
        """Runs them all; returns when each is done or has been given up."""
        self._specs, self._total = {spec.key: spec for spec in specs}, len(specs)
        for spec in specs:
            (self._waiting[spec.after] if spec.after in self._specs else self._ready).append(spec)
        while True:
            self._start()
            if not self._busy and not self._later:
                return self.summary
            for ended in self._wait():
                self._judge(ended)

    def _start(self) -> None:
        now, batch = time.monotonic(), list[Spec]()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        while self._ready:  # what is skipped makes others ready
            spec = self._ready.pop()
            if done_files(self._root, spec.key) is not None:
                self.summary.skipped.append(spec.key)
                self._ready += self._waiting.pop(spec.key, [])
            else:
                batch.append(spec)
        for spec in batch:
            write_spec(self._root, spec)
            self._tries[spec.key] += 1
            self._busy[spec.key] = spec
        if batch:
            self._executor.submit(sorted(batch, key=lambda spec: -spec.length))

    def _wait(self) -> list[Ended]:
        due = self._later[0][0] - time.monotonic() if self._later else PATIENCE
        timeout = min(max(0.0, due), PATIENCE)
        if self._busy:
            return self._executor.ended(timeout)
        time.sleep(timeout)
        return []

    def _judge(self, ended: Ended) -> None:
        spec = self._busy.pop(ended.key)
        if done_files(self._root, spec.key) is not None:
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
            self._gave_up(spec, f"{reason} ({tries} attempts)")
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
        if key not in self._specs or not withdraw(self._root, key):
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
        self._note(f"[{count}/{self._total}] {spec.title or spec.key}: {how}")
        self._ready += self._waiting.pop(spec.key, [])

    def _reason(self, ended: Ended) -> str:
        if ended.code is None:
            return ended.reason
        said = last_line(folder_of(self._root, ended.key))
        if ended.code == FAILED:
            return said or "it failed"
        signalled = -ended.code if ended.code < 0 else ended.code - 128 if ended.code > 128 else 0
        how = f"its process was ended by signal {signalled}" if signalled else f"it ended with exit code {ended.code}"
        return f"{how}: {said}" if said else how
