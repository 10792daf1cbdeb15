"""Exponential smoothing with additive errors (Hyndman et al. 2002, https://doi.org/10.1016/S0169-2070(01)00110-8)."""

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from torch import nn

from rbl_statistical.fitted_forecaster import Distribution, Fitted
from robustbench_lab.plugin_tools.series_channels import Count, Known, SeriesChannels

Trend = Literal["auto", "none", "additive", "damped"]
TRENDS: dict[str, dict[str, Any]] = {
    "none": {"trend": None},
    "additive": {"trend": "add"},
    "damped": {"trend": "add", "damped_trend": True},
}
"""What statsmodels calls them."""


def ets(
    *,
    season: Count = 24,
    horizon: Count | None = None,
    trend: Trend = "auto",
    series: Count | None = None,
    known: Known = (),
) -> nn.Module:
    """Additive errors, trend and season. season: steps; 1: none. trend: `auto` takes the smallest AICc."""
    return Ets(SeriesChannels("ets", series, tuple(known)), horizon, season, trend).eval()


class Ets(Fitted):
    """The first level, trend and season are statsmodels' heuristic ones; only the smoothing is estimated."""

    def __init__(self, channels: SeriesChannels, horizon: int | None, season: int, trend: Trend) -> None:
        super().__init__(channels, horizon, season)
        self.trends = list(TRENDS) if trend == "auto" else [trend]

    def fit(self, history: NDArray[np.float64]) -> Distribution:
        """The best of the trends."""
        values = pd.Series(history)
        season = {"seasonal": "add", "seasonal_periods": self.season} if self.season > 1 else {}
        fits = [
            ETSModel(values, error="add", initialization_method="heuristic", **season, **TRENDS[trend]).fit(disp=0)
            for trend in self.trends
        ]
        best = min(fits, key=lambda one: float(one.aicc))
        made = best.get_prediction(start=len(history), end=len(history) + self.horizon - 1)
        return np.asarray(made.predicted_mean), np.sqrt(np.asarray(made.forecast_variance))
