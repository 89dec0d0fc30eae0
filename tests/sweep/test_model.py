"""The wall-time model: the formula is a lower bound that the simulated queue comes close to, and knows its limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sweep.wall_time import LARGE, Costs, Job, formula, jobs_of, main, simulate

FREE = Costs(0.0, 0.0, 0.0)
SECONDS = st.lists(st.floats(0.1, 1000.0), min_size=1, max_size=40)


def test_by_hand() -> None:
    """A chain of 5 + 5 beside 4 + 3 on two slots: 10 seconds, and 17 on one."""
    jobs = [Job(5.0), Job(5.0, after=0), Job(4.0), Job(3.0)]
    assert simulate(jobs, 2, FREE) == 10.0
    assert simulate(jobs, 1, FREE) == 17.0
    assert formula(jobs, 2, FREE) == 10.0
    assert simulate(jobs, 2, Costs(1.0, 0.0, 0.5)) == 14.0, "a second for each of two starts, half a one for four rows"


def test_a_slow_head_is_the_bottleneck() -> None:
    jobs = [Job(1.0)] * 1000
    assert simulate(jobs, 64, Costs(0.0, 0.5, 0.0)) == pytest.approx(501.0)
    assert formula(jobs, 64, Costs(0.0, 0.5, 0.0)) == pytest.approx(500.0)


@given(SECONDS, st.integers(1, 8), st.floats(0.0, 5.0))
def test_the_queue_is_between_the_bounds(seconds: list[float], slots: int, start: float) -> None:
    jobs = [Job(length, index // 2 if index % 3 == 2 else None) for index, length in enumerate(seconds)]
    costs = Costs(start, 0.0, 0.0)
    simulated, bound = simulate(jobs, slots, costs), formula(jobs, slots, costs)
    assert bound * (1 - 1e-9) <= simulated <= 2 * bound * (1 + 1e-9)


def test_the_document_has_what_its_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--head", "0.2", "--last", "0.1"])
    runs, table = capsys.readouterr().out.strip().split("\n\n")
    text = (Path(__file__).parents[2] / "docs/SCALING.md").read_text()
    assert f"`python -m tests.sweep.wall_time --head 0.2 --last 0.1`: {runs}\n\n{table}\n" in text


def test_the_large_suite_shares_first_stages() -> None:
    jobs = jobs_of("large", LARGE, rate=1000.0)
    followers = [job for job in jobs if job.after is not None]
    assert len(jobs) - len(followers) < len(followers), "some first stages have several followers"
    assert max(job.seconds for job in jobs) > 0
    assert simulate(jobs, 8, FREE) == pytest.approx(formula(jobs, 8, FREE), rel=0.1)
