"""The forms that the Square Attack gives to changes in l2 and l1: a hill and a valley side by side."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

RING_DECAY = {2: -2, 1: -4}
"""The k-th square from the centre of a hill out adds k to this power, by the order of the norm (AutoAttack's)."""


@lru_cache(maxsize=64)
def bump_shapes(size: tuple[int, int], order: int, device: torch.device) -> Tensor:
    """The hill above the valley, and the hill beside it, each of norm 1: `[2, *size]`.

    order: 2 for l2, 1 for l1, whose hills are steeper.
    """
    height, width = size
    return torch.stack(
        [_hill_above_valley(height, width, order, device), _hill_above_valley(width, height, order, device).T]
    )


def _hill_above_valley(height: int, width: int, order: int, device: torch.device) -> Tensor:
    upper = height // 2
    both = torch.cat([_hill(upper, width, order, device), -_hill(height - upper, width, order, device)])
    return both / torch.linalg.vector_norm(both, ord=order)


def _hill(height: int, width: int, order: int, device: torch.device) -> Tensor:
    """Concentric squares of falling height, of norm 1: `[height, width]`."""
    rings = max(height, width) // 2 + 1
    added = torch.arange(1, rings + 1, device=device, dtype=torch.float32).pow(RING_DECAY[order])
    from_here_out = added.flip(0).cumsum(0).flip(0)
    row, column = ((torch.arange(length, device=device) - length // 2).abs() for length in (height, width))
    hill = from_here_out[torch.maximum(row[:, None], column)]
    return hill / torch.linalg.vector_norm(hill, ord=order)
