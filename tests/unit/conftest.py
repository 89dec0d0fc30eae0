from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import harness.datasets
from harness.reading.dataset import Dataset
from tests.unit import toys

# Property tests must not depend on how busy the machine is.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    """Registers the toy data set the way any data set is registered: by a module in a `harness.datasets` folder."""
    folder = tmp_path / "registered"
    folder.mkdir()
    (folder / "toy.py").write_text("from tests.unit.toys import make_dataset\nDATASET = make_dataset()\n")
    monkeypatch.setattr(harness.datasets, "__path__", [*harness.datasets.__path__, str(folder)])
    importlib.invalidate_caches()
    yield toys.make_dataset()
    sys.modules.pop("harness.datasets.toy", None)
    vars(harness.datasets).pop("toy", None)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path for plugins (`toys.write_plugin`); what they imported is forgotten afterwards."""
    root = tmp_path / "plugins"
    (root / "methods").mkdir(parents=True)
    before = set(sys.modules)
    monkeypatch.syspath_prepend(root)
    importlib.invalidate_caches()
    yield root
    for name in set(sys.modules) - before:
        if str(root) in str(getattr(sys.modules[name], "__file__", "")) or name.startswith("methods"):
            del sys.modules[name]
    sys.modules.pop("methods", None)
    importlib.invalidate_caches()
