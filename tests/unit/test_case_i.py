"""Case I: a test set that is not balanced, where the accuracy over all images flatters a constant prediction."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.engine.evaluation import TOP5_CLASSES, Evaluation
from harness.records.evaluate import score_epoch
from harness.records.history import History
from harness.records.schema import Record
from harness.reporting.summary import RunResult, Section, summarize
from harness.reporting.tables import leaderboard_csv, markdown
from harness.running.cells import print_table
from tests.factories import make_record

TARGETS = np.repeat([0, 1, 2], [30, 6, 1])
CONSTANT = np.zeros(37, np.int64)


def constant(targets: np.ndarray = TARGETS) -> Record:
    scores = score_epoch(np.zeros(len(targets), np.int64), targets, [48, 50, 49], epoch=9, ece=0.1)
    record = make_record(class_counts=[48, 50, 49])
    return dataclasses.replace(record, results={"last": scores}, test_images=len(targets))


def section(record: Record) -> Section:
    (found,) = summarize([RunResult("0.json", record, {})])
    return found


def test_case_i_a_constant_prediction_shows_its_class_mean(capsys: pytest.CaptureFixture[str]) -> None:
    """81 % of the images, a third of the classes."""
    found = constant()
    assert "Class mean | Macro-F1" in markdown(section(found), "last")
    assert "| 81.08 |" in markdown(section(found), "last")
    assert "| 33.33 |" in markdown(section(found), "last")
    assert "macro,macro_std" in leaderboard_csv([section(found)])
    print_table([found])
    shown = capsys.readouterr().out
    assert "class" in shown
    assert "81.08" in shown
    assert "33.33" in shown


def test_case_i_a_balanced_test_set_needs_no_second_column(capsys: pytest.CaptureFixture[str]) -> None:
    found = constant(np.repeat([0, 1, 2], 10))
    assert "Class mean" not in markdown(section(found), "last")
    print_table([found])
    assert "class" not in capsys.readouterr().out


@pytest.mark.parametrize("classes", [TOP5_CLASSES - 1, TOP5_CLASSES])
def test_case_i_top_5_from_100_classes_on(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against ranks computed by numpy."""
    logits = torch.randn(60, classes, generator=torch.Generator().manual_seed(0))
    targets = np.random.default_rng(0).integers(0, classes, 60)
    targets[:20] = logits[:20].numpy().argsort(1)[:, -3]  # a third of them is third
    evaluation = object.__new__(Evaluation)
    monkeypatch.setattr(Evaluation, "_averaged", lambda *_: logits, raising=True)
    test = SimpleNamespace(targets=lambda: targets)
    monkeypatch.setattr(evaluation, "_split", SimpleNamespace(num_classes=classes, test=test), raising=False)
    monkeypatch.setattr(evaluation, "_job", SimpleNamespace(recipe=SimpleNamespace(epochs=1)), raising=False)
    history = History()
    evaluation.add_to(history, 0)
    rank = (logits.numpy() > np.take_along_axis(logits.numpy(), targets[:, None], 1)).sum(1)
    assert history.top5 == ([pytest.approx((rank < 5).mean())] if classes >= 100 else [])


def test_case_i_top_5_is_shown_where_it_was_measured() -> None:
    found = constant()
    last = found.results["last"]
    assert last is not None
    measured = dataclasses.replace(found, results={"last": dataclasses.replace(last, top5=0.875)})
    assert "Top-5" in markdown(section(measured), "last")
    assert "| 87.50 |" in markdown(section(measured), "last")
    assert "Top-5" not in markdown(section(found), "last")
