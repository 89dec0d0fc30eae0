"""Mixing images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def cutmix_mask(
    share: Tensor, centre: tuple[Tensor, Tensor], shape: tuple[int, int], rounding: Literal["truncate", "ceil"]
) -> Tensor:
    """Where CutMix (Yun et al., ICCV 2019) pastes the second image: a box, clipped at the border. Bool, shape (H, W).

    Args:
        share: of the first image before clipping; the sides are sqrt(1 - share) of the image's. A scalar.
        centre: row and column.
        shape: H and W.
        rounding: of the sides to whole pixels; half of a side, rounded down, lies on either side of the centre.
    """

    def inside(size: int, at: Tensor) -> Tensor:
        side = size * (1 - share).sqrt()
        half = ((side.ceil() if rounding == "ceil" else side.floor()) / 2).floor()
        place = torch.arange(size, device=share.device)
        return (place >= at - half) & (place < at + half)

    return inside(shape[0], centre[0])[:, None] & inside(shape[1], centre[1])
