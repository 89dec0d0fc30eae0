"""Methods in a folder of their own, found as a user's would be."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.splits.splits import Split, write_split

METHODS = {
    "toy": """
        import torch.nn.functional as F
        from dataclasses import dataclass
        from harness.api import Method, second_stage

        class Toy(Method):
            name = "toy"
            stages = ("train", "finetune")

            @dataclass(frozen=True)
            class Params:
                smoothing: float = 0.0
                temperature: float = second_stage(1.0)
                retrain: bool = second_stage(True)

            @classmethod
            def stages_of(cls, params):
                return cls.stages if params.retrain else ("train",)

            def loss(self, logits, target, step):
                scale = self.params.temperature if step.stage == "finetune" else 1.0
                return F.cross_entropy(logits * scale, target, label_smoothing=self.params.smoothing)
        """,
    "child": """
        from harness.api import Method

        class Child(Method):
            name = "child"
            stages = ("train", "finetune")
            first_stage = "plain"
        """,
    "plain": """
        from harness.api import Method

        class Plain(Method):
            name = "plain"
        """,
    "exploding": """
        from harness.api import Method

        class Exploding(Method):
            name = "exploding"

            def loss(self, logits, target, step):
                bad = step.epoch == 1 and self.seed_is_odd()
                return super().loss(logits, target, step) * (float("nan") if bad else 1.0)

            def seed_is_odd(self):
                return float(self.first_weight.sum()) < self.threshold

            threshold = 1e9

            def on_stage_start(self, model, stage):
                self.first_weight = model.backbone.conv1.weight.detach().clone()
        """,
    "buggy": """
        from harness.api import Method

        class Buggy(Method):
            name = "buggy"

            def loss(self, logits, target, step):
                return super().loss(logits, target[:3], step)
        """,
    "picky": """
        from harness.api import Method

        class Picky(Method):
            name = "picky"

            def skip(self):
                return "needs a hundred classes"
        """,
}

RECIPES = """
title: {name}
variants:
  warm: {{params: {{temperature: 2.0}}}}
  smooth: {{params: {{smoothing: 0.1}}}}
  once: {{params: {{retrain: false}}}}
tracks:
  common:
    tiny:
      backbone: resnet8_cifar
      epochs: 2
      batch_size: 32
      lr: 0.1
      weight_decay: 5e-4
      finetune: {{epochs: 1}}
"""


@pytest.fixture
def workspace(tiny_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder with the tiny split, and the methods above."""
    import textwrap

    for name, code in METHODS.items():
        folder = tmp_path / "plugins" / "methods" / name
        folder.mkdir(parents=True)
        (folder / "method.py").write_text(textwrap.dedent(code))
        (folder / "recipes.yaml").write_text(RECIPES.format(name=name))
    monkeypatch.syspath_prepend(tmp_path / "plugins")
    importlib.invalidate_caches()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_split(tiny_split, Path("results/splits/tiny-lt-if10.json"))
    Path("data/tiny").mkdir(parents=True)
    yield tmp_path / "work"
    for name in METHODS:
        sys.modules.pop(f"methods.{name}.method", None)
        sys.modules.pop(f"methods.{name}", None)
