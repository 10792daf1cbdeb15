"""Plasma fractals by the diamond-square algorithm (Fournier, Fussell & Carpenter 1982), on a torus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rbl_attacks.natural.corruption_kinds import Numbers


def plasma(like: Tensor, decay: float, numbers: Numbers, draw: str) -> Tensor:
    """One for each image of `like` `[N, C, H, W]`, from 0 to 1 over its square, `[N, 1, H, W]`.

    decay: by how much the random share of a point shrinks from one grid to the next finer one; smoother where larger.
    """
    count, _, height, width = like.shape
    side = max(2, 1 << (max(height, width) - 1).bit_length())
    field = like.new_zeros(count, side, side)
    step, spread = side, 1.0
    while step >= 2:
        half = step // 2
        # As in the published script, the random share shrinks with the square of the decay.
        shape = (side // step, side // step)
        middle, above, beside = (
            (numbers.uniform(f"{draw}/{step}/{place}", shape) * 2 - 1) * spread**2 for place in range(3)
        )
        corner = field[:, ::step, ::step]
        pair = corner + corner.roll(-1, 1)
        centre = (pair + pair.roll(-1, 2)) / 4 + middle
        field[:, half::step, half::step] = centre
        field[:, ::step, half::step] = (centre + centre.roll(1, 1) + corner + corner.roll(-1, 2)) / 4 + above
        field[:, half::step, ::step] = (centre + centre.roll(1, 2) + corner + corner.roll(-1, 1)) / 4 + beside
        step, spread = half, spread / decay
    low, high = (end[:, None, None] for end in field.flatten(1).aminmax(dim=1))
    scaled = (field - low) / torch.where(high > low, high - low, 1)
    return scaled[:, None, :height, :width]
