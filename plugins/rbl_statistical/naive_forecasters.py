"""Forecasts that need neither training nor fitting, with their true gradient (Hyndman & Athanasopoulos 2021, 5.2)."""

import torch
from torch import Tensor, nn

from robustbench_lab.plugin_tools.series_channels import Count, Known, SeriesChannels, Univariate, latest


def naive(*, horizon: Count | None = None, series: Count | None = None, known: Known = ()) -> nn.Module:
    """The last value, at all steps. series, known: see `SeriesChannels`."""
    return SeasonalNaive(SeriesChannels("naive", series, tuple(known)), horizon, 1).eval()


def seasonal_naive(
    *, season: Count = 24, horizon: Count | None = None, series: Count | None = None, known: Known = ()
) -> nn.Module:
    """The last `season` steps, again and again. Raises UsageError where a history is shorter."""
    return SeasonalNaive(SeriesChannels("seasonal-naive", series, tuple(known)), horizon, season).eval()


def drift(*, horizon: Count | None = None, series: Count | None = None, known: Known = ()) -> nn.Module:
    """The line through the first and the last value."""
    return Drift(SeriesChannels("drift", series, tuple(known)), horizon).eval()


class SeasonalNaive(Univariate):
    """What came one season before."""

    def __init__(self, channels: SeriesChannels, horizon: int | None, season: int) -> None:
        super().__init__(channels, horizon)
        self.season = season

    def one_series(self, history: Tensor) -> Tensor:
        """`[B, L]` to `[B, H]`."""
        last = latest(history, self.season, self.channels.source)
        return last[:, torch.arange(self.horizon, device=history.device) % self.season]


class Drift(Univariate):
    """As much more with each step as on average before."""

    def one_series(self, history: Tensor) -> Tensor:
        """`[B, L]` to `[B, H]`."""
        latest(history, 2, self.channels.source)
        slope = (history[:, -1:] - history[:, :1]) / (history.shape[1] - 1)
        return history[:, -1:] + slope * torch.arange(1, self.horizon + 1, device=history.device)
