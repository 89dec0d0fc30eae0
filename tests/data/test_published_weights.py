"""The published weights themselves, where a mirror of them is at hand, and the records that came with the project."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.splits import store
from harness.weights.catalogue import catalogue, fetch, get_weights
from harness.weights.record import FOLDER, read_weights_record
from harness.weights.scoring import score
from tests.data.mirror import REPOSITORY, mirror_with

SCORES = {
    "cifar10-lt-if100-ce": {"ce": 71.92, "logit_adjustment": 78.08, "tau_norm": 76.66},
    "cifar10-resnet20": {"ce": 91.73},
    "cifar10-resnet32": {"ce": 92.63},
}


@pytest.mark.parametrize("name", SCORES)
def test_the_committed_records(name: str) -> None:
    record = read_weights_record(REPOSITORY / FOLDER / f"{name}.json")
    assert record.file_sha256 == get_weights(name).sha256
    assert (record.weights, record.source) == (get_weights(name), catalogue().source(get_weights(name)))
    found = {result.method: round(100 * result.scores.all, 2) for result in record.results}
    assert SCORES[name].items() <= found.items()
    assert list(found) == ["ce", *catalogue().post_hoc]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 in a data root of its own."""
    mirror = mirror_with("cifar10-lt-pool.tar.xz")
    root = tmp_path_factory.mktemp("data")
    store.fetch(store.get_dataset("cifar10"), root, mirror)
    return root


@pytest.mark.parametrize("name", SCORES)
def test_scored_as_published(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, file = mirror_with(), get_weights(name).file
    if not any((folder / file).is_file() for folder in (mirror, mirror / "weights", mirror.parent / "weights")):
        pytest.skip(f"{file} is not here; LTBENCH_MIRROR can name a folder that holds it")
    monkeypatch.setenv("LTBENCH_DATA", str(data))
    monkeypatch.chdir(data)
    record, targets, _ = score(name, get_weights(name), fetch(name, mirror), torch.device("cpu"))
    found = {result.method: 100 * result.scores.all for result in record.results}
    for method, value in SCORES[name].items():
        assert found[method] == pytest.approx(value, abs=0.02)  # two images: processors round differently
    assert len(targets) == 10_000
    if name == "cifar10-lt-if100-ce":
        assert record.class_counts == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
        assert record.results[0].scores.ece == pytest.approx(0.192, abs=0.001)
        assert not record.head_bias
