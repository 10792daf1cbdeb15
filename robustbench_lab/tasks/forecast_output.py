"""What a forecaster returns where it says how sure it is: quantiles, or paths drawn from its distribution.

A point forecast is a tensor `[N, H, C]`. The point forecast of a distribution is its median, which has the smallest
expected absolute error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from robustbench_lab.errors import SkipCell

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The quantiles that forecasts are judged by, as in the M5, GluonTS' and fev's weighted quantile loss."""


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of each value that is forecast."""

    values: Tensor
    """`[N, H, C, Q]`, in the data's own units."""
    levels: tuple[float, ...]
    """Q numbers above 0 and below 1, in rising order."""

    def __post_init__(self) -> None:
        if not (self.levels and all(a < b for a, b in zip((0.0, *self.levels), (*self.levels, 1.0), strict=True))):
            raise ValueError(f"quantile levels {self.levels}: give numbers above 0 and below 1 in rising order")
        if self.values.ndim != 4 or self.values.shape[3] != len(self.levels):
            raise ValueError(f"quantiles of shape {list(self.values.shape)}: [N, H, C, {len(self.levels)}] are due")

    def detach(self) -> Quantiles:
        """The same without the graph."""
        return Quantiles(self.values.detach(), self.levels)

    def in_float32(self) -> Quantiles:
        """The same in float32, after a pass in mixed precision."""
        return Quantiles(self.values.float(), self.levels)

    def at(self, levels: tuple[float, ...]) -> Tensor:
        """The quantiles of these levels, `[N, H, C, len(levels)]`: on the line between the nearest known ones.

        Beyond the outermost level it is that level's.
        """
        if levels == self.levels:
            return self.values
        return torch.stack([self._at(level) for level in levels], dim=3)

    def _at(self, level: float) -> Tensor:
        above = next((place for place, one in enumerate(self.levels) if one >= level), len(self.levels) - 1)
        below = above if self.levels[above] <= level else max(0, above - 1)
        if above == below:
            return self.values[..., above]
        share = (level - self.levels[below]) / (self.levels[above] - self.levels[below])
        return self.values[..., below].lerp(self.values[..., above], share)


@dataclass(frozen=True)
class Paths:
    """Possible futures, drawn from the model's distribution: the same ones for the same history."""

    values: Tensor
    """`[N, H, C, S]`, in the data's own units; with a gradient where they are drawn by reparameterisation."""
    log_probability: Tensor | None = None
    """`[N, S]`: of each path, as a function of the history with the path itself held fixed, which score-function
    gradients need."""

    def __post_init__(self) -> None:
        if self.values.ndim != 4:
            raise ValueError(f"paths of shape {list(self.values.shape)}: [N, H, C, S] are due")

    def detach(self) -> Paths:
        """The same without the graph; a log-probability has no meaning then."""
        return Paths(self.values.detach())

    def in_float32(self) -> Paths:
        """The same in float32, after a pass in mixed precision."""
        return Paths(self.values.float(), None if self.log_probability is None else self.log_probability.float())

    def at(self, levels: tuple[float, ...]) -> Tensor:
        """The quantiles of these levels, `[N, H, C, len(levels)]`."""
        wanted = torch.tensor(levels, dtype=self.values.dtype, device=self.values.device)
        return self.values.quantile(wanted, dim=3).movedim(0, 3)

    def mean_by_score(self) -> Tensor:
        """The mean path `[N, H, C]`, whose gradient is the score-function estimate.

        Each path's deviation from the mean of the others, times the gradient of its log-probability (Williams 1992;
        for forecasters Dang-Nhu et al. 2020, section 4.1, https://arxiv.org/abs/2003.03778). Raises SkipCell where the
        model gives no log-probabilities.
        """
        if self.log_probability is None:
            raise SkipCell("the model gives no log-probabilities of its paths: take gradient='path'")
        paths = self.values.detach()
        mean, count = paths.mean(3), paths.shape[3]
        if count < 2:
            raise SkipCell("a score-function gradient needs two paths or more")
        # Of value 0, and with the log-probability's gradient.
        score = (self.log_probability - self.log_probability.detach())[:, None, None, :]
        return mean + ((paths - mean[..., None]) * score).sum(3) / (count - 1)


Forecast: TypeAlias = Tensor | Quantiles | Paths


def is_point(forecast: object) -> bool:
    """Whether it has the form of point forecasts: a float tensor `[N, H, C]`."""
    return isinstance(forecast, Tensor) and forecast.ndim == 3 and forecast.is_floating_point()


def point(forecast: Forecast) -> Tensor:
    """The point forecast, `[N, H, C]`: the median of a distribution."""
    return forecast if isinstance(forecast, Tensor) else forecast.at((0.5,)).squeeze(3)


def centre(forecast: Forecast) -> Tensor:
    """What gradients go through, `[N, H, C]`: as `point`, of paths the mean, which all of them move."""
    return forecast.values.mean(3) if isinstance(forecast, Paths) else point(forecast)


def width(forecast: Forecast) -> Tensor:
    """How wide the interval is that holds the central 80%, `[N, H, C]`; 0 for points."""
    if isinstance(forecast, Tensor):
        return torch.zeros_like(forecast)
    low, high = forecast.at((LEVELS[0], LEVELS[-1])).unbind(3)
    return high - low
