"""Outliers cut off by the Hampel identifier (Hampel 1974; Liu, Shah & Jiang 2004 for filtering)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from rbl_defenses.series.measured import Ahead, Channels, Filtered, Measured
from rbl_defenses.series.rolling import Window, windows

NORMAL = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""


def clip_outliers(
    model: nn.Module,
    *,
    window: Window = 13,
    deviations: Annotated[float, Field(gt=0)] = 3.0,
    channels: Channels | None = None,
    ahead: Ahead = 0,
) -> nn.Module:
    """What is more than so many robust standard deviations from the median of its neighbours is brought that near.

    Differentiable but for single points: the gradient of what is cut off goes to its neighbours.

    window: how many steps about each one, an odd number.
    deviations: standard deviations, as the median absolute deviation in the window gives them.
    channels: those that were measured; None: all. ahead: steps at the end that hold what is known of the future.
    """
    return Filtered(model, Measured(channels, ahead), lambda x: _clipped(x, window, deviations))


def _clipped(x: Tensor, window: int, deviations: float) -> Tensor:
    about = windows(x, window)
    middle = about.median(-1, keepdim=True).values
    reach = deviations * NORMAL * (about - middle).abs().median(-1).values
    middle = middle.squeeze(-1)
    return x.maximum(middle - reach).minimum(middle + reach)
