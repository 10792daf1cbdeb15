"""Median filter over time."""

from torch import nn

from rbl_defenses.series.measured import Ahead, Channels, Filtered, Measured
from rbl_defenses.series.rolling import Window, windows


def median_filter(
    model: nn.Module, *, window: Window = 5, channels: Channels | None = None, ahead: Ahead = 0
) -> nn.Module:
    """The median of each step and its neighbours. Differentiable: the gradient goes to the step that was the median.

    window: how many steps, an odd number; at the ends of the history the end is repeated.
    channels: those that were measured; None: all. ahead: steps at the end that hold what is known of the future.
    """
    return Filtered(model, Measured(channels, ahead), lambda x: windows(x, window).median(-1).values)
