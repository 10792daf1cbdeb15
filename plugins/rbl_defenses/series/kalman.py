"""Kalman smoother of the local level model (Durbin & Koopman, "Time series analysis by state space methods", ch. 2)."""

from functools import lru_cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from rbl_defenses.series.measured import Ahead, Channels, Filtered, Measured


def kalman(
    model: nn.Module,
    *,
    signal: Annotated[float, Field(gt=0)] = 1.0,
    channels: Channels | None = None,
    ahead: Ahead = 0,
) -> nn.Module:
    """The expected level at each step, given the whole history: a linear map, so gradients go through it exactly.

    signal: the variance of the level's change from step to step, in variances of the measurement's error. The larger,
        the less is smoothed.
    channels: those that were measured; None: all. ahead: steps at the end that hold what is known of the future.
    """
    return Filtered(model, Measured(channels, ahead), lambda x: _smoother(x.shape[1], signal).to(x) @ x)


@lru_cache(maxsize=8)
def _smoother(steps: int, signal: float) -> Tensor:
    """Measurements to expected levels where nothing is known of the first level, float64 `[L, L]`.

    The expectation is the mode, which minimises |y - level|**2 + |changes of level|**2 / signal.
    """
    one = torch.eye(steps, dtype=torch.float64)
    change = one.diff(dim=0)
    smoother: Tensor = torch.linalg.inv(one + change.T @ change / signal)
    return smoother
