"""Images put together from two: the box of CutMix. Nothing here waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def cutmix_box(
    height: int, width: int, keep: Tensor, centre: tuple[Tensor, Tensor], *, round_up: bool = False
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The rows and the columns (each: first, and behind the last) that CutMix replaces (Yun et al., ICCV 2019).

    Args:
        keep: share of the area that stays, before the box is clipped at the image's border.
        centre: row and column.
        round_up: sides of height and width times sqrt(1 - keep) are rounded up; else they are cut. Odd ones lose 1.
    """

    def bounds(extent: int, at: Tensor) -> tuple[Tensor, Tensor]:
        side = extent * (1 - keep).sqrt()
        half = ((side.ceil() if round_up else side.floor()) / 2).floor()
        return (at - half).clamp(min=0), (at + half).clamp(max=extent)

    return bounds(height, centre[0]), bounds(width, centre[1])


def box_mask(
    height: int, width: int, box: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]], device: torch.device
) -> Tensor:
    """True within the box, shape (H, W)."""
    (top, bottom), (left, right) = box
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
