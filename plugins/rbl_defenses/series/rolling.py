"""Windows about each step of a history."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor


def _odd(window: int) -> int:
    if window % 2 == 0:
        raise ValueError("give an odd number of steps, as many before a step as after it")
    return window


Window = Annotated[int, Field(ge=3), AfterValidator(_odd)]


def windows(x: Tensor, window: int) -> Tensor:
    """Histories `[N, L, C]` to the steps about each one, `[N, L, C, window]`; at the ends the end is repeated."""
    half = window // 2
    places = range(-half, x.shape[1] + half)
    return x[:, [min(max(place, 0), x.shape[1] - 1) for place in places]].unfold(1, window, 1)
