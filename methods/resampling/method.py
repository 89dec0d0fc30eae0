"""Re-sampling in one stage: Kang et al., Decoupling Representation and Classifier, ICLR 2020 (joint training)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.api import Method, Sampler, Stage
from harness.toolbox.samplers import make_sampler


class Resampling(Method):
    """Cross-entropy from end to end; only the order of the images is another one."""

    name = "resampling"

    @dataclass(frozen=True)
    class Params:
        """sampler: class_aware (the code's class-balanced one), class_balanced (N independent draws), square_root
        (classes in proportion to the square root of their images), or progressive (instance-balanced at first,
        class-balanced in the end). k: images in a row of a class, with class_aware.
        """

        sampler: Literal["class_aware", "class_balanced", "square_root", "progressive"] = "class_aware"
        k: int = 4

        def __post_init__(self) -> None:
            if self.k < 1:
                raise ValueError(f"k must be at least 1, found {self.k}")

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """As the params say."""
        return make_sampler(self.params.sampler, labels, self.task.num_classes, k=self.params.k)
