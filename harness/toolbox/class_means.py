"""Class means of features, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class ClassMeans:
    """Sums of the features of each class, (C, d), and of its images, (C,); float64."""

    def __init__(self, num_classes: int, feature_dim: int, device: torch.device) -> None:
        self.sums = torch.zeros(num_classes, feature_dim, dtype=torch.float64, device=device)
        self.seen = torch.zeros(num_classes, dtype=torch.float64, device=device)

    def add(self, features: Tensor, target: Tensor, average: Callable[[Tensor], Tensor], whole: int) -> None:
        """Counts a batch in.

        Args:
            features, target: of this process's images, shapes (B, d) and (B,).
            average: from a mean over these images to that over the whole batch, of `whole` images.
        """
        one_hot = F.one_hot(target, len(self.sums)).to(self.sums)
        self.sums += whole * average(one_hot.T @ features.detach().to(self.sums) / len(target))
        self.seen += whole * average(one_hot.mean(0))

    @property
    def of_all(self) -> Tensor:
        """Mean over all images, shape (d,)."""
        return self.sums.sum(0) / self.seen.sum()

    @property
    def of_classes(self) -> Tensor:
        """Means of the classes, shape (C, d); that of a class without an image is 0."""
        return self.sums / self.seen[:, None].clamp_min(1)

    def clear(self) -> None:
        """Begins anew."""
        self.sums.zero_()
        self.seen.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """The running sums."""
        return {"sums": self.sums, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes them back."""
        self.sums.copy_(state["sums"])
        self.seen.copy_(state["seen"])
