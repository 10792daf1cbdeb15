"""Forecasters that treat every series alike and by itself: normalisation around a network for one series."""

import torch
from torch import Tensor, nn

from robustbench_lab.errors import SkipCell
from robustbench_lab.tasks.forecast_output import Paths, Quantiles


class Channelwise(nn.Module):
    """Between the data's own units and those of a network that takes and gives standardised series.

    Every series has a mean and a standard deviation of its own, of the training part, and all go through one network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, series: int = 1) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(series))
        self.register_buffer("std", torch.ones(series))

    def standardised(self, history: Tensor) -> Tensor:
        """`[N, L, C]` in the data's own units to `[N * C, L]`. Raises SkipCell."""
        if history.shape[2] != len(self.mean):
            raise SkipCell(f"the model forecasts {len(self.mean)} series; inputs have {history.shape[2]} channels")
        return ((history - self.mean) / self.std).transpose(1, 2).flatten(0, 1)

    def in_own_units(self, values: Tensor) -> Tensor:
        """`[N * C, H]` or `[N * C, H, K]` to `[N, H, C]` or `[N, H, C, K]` in the data's own units."""
        by_series = values.unflatten(0, (-1, len(self.mean))).transpose(1, 2)
        shape = (-1, *(1,) * (by_series.ndim - 3))
        return by_series * self.std.view(shape) + self.mean.view(shape)


class PointForecaster(Channelwise):
    """Histories `[N, L, C]` to forecasts `[N, H, C]`; its network maps `[M, L]` to `[M, H]`."""

    def forward(self, history: Tensor) -> Tensor:
        return self.in_own_units(self.net(self.standardised(history)))


class QuantileForecaster(Channelwise):
    """Histories `[N, L, C]` to quantiles; its network maps `[M, L]` to `[M, H, Q]` and names their `levels`."""

    levels: tuple[float, ...]

    def __init__(self, net: nn.Module, levels: tuple[float, ...], series: int = 1) -> None:
        super().__init__(net, series)
        self.levels = levels

    def forward(self, history: Tensor) -> Quantiles:
        return Quantiles(self.in_own_units(self.net(self.standardised(history))), self.levels)


class PathForecaster(Channelwise):
    """Histories `[N, L, C]` to sample paths; its network maps `[M, L]` to paths `[M, H, S]` and log-densities `[M, S]`.

    Where the network gives no densities, they are None. Those of several series count as independent.
    """

    def forward(self, history: Tensor) -> Paths:
        paths, log_density = self.net(self.standardised(history))
        if log_density is None:
            return Paths(self.in_own_units(paths))
        together = log_density.unflatten(0, (-1, len(self.mean))).sum(1)
        return Paths(self.in_own_units(paths), together - paths.shape[1] * self.std.log().sum())
