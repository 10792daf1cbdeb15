"""Seasonal ARIMA (Box & Jenkins), with orders as given or chosen from a few."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.stattools import kpss
from torch import nn

from rbl_statistical.fitted_forecaster import Distribution, Fitted
from robustbench_lab.plugin_tools.series_channels import Count, Known, SeriesChannels

Order = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=3, max_length=3)]
"""[autoregressive terms, differences, moving-average terms]."""
FIRST_ORDERS = ((2, 2), (0, 0), (1, 0), (0, 1))
"""Autoregressive and moving-average terms that Hyndman & Khandakar's search (2008) begins with."""


def arima(
    *,
    order: Order | Literal["auto"] = [1, 0, 1],  # noqa: B006 (never changed)
    seasonal_order: Order = [0, 1, 0],  # noqa: B006
    season: Count = 24,
    horizon: Count | None = None,
    series: Count | None = None,
    known: Known = (),
) -> nn.Module:
    """ARIMA by maximum likelihood.

    order: `auto` differences once where a KPSS test rejects a level at 5%, and takes the smallest AICc of four orders.
    seasonal_order: the same numbers for the season; season: steps; 1: none. series, known: see `SeriesChannels`.
    """
    channels = SeriesChannels("arima", series, tuple(known))
    return Arima(channels, horizon, season, order, seasonal_order).eval()


class Arima(Fitted):
    """With a constant where nothing is differenced, as statsmodels does by default."""

    def __init__(
        self,
        channels: SeriesChannels,
        horizon: int | None,
        season: int,
        order: list[int] | Literal["auto"],
        seasonal_order: list[int],
    ) -> None:
        super().__init__(channels, horizon, season)
        self.order = order
        self.seasonal_order = (*seasonal_order, season) if season > 1 else (0, 0, 0, 0)

    def fit(self, history: NDArray[np.float64]) -> Distribution:
        """The best of the orders."""
        fits = [
            ARIMA(history, order=order, seasonal_order=self.seasonal_order).fit(cov_type="none")
            for order in self._orders(history)
        ]
        made = min(fits, key=lambda one: float(one.aicc)).get_forecast(self.horizon)
        return np.asarray(made.predicted_mean), np.asarray(made.se_mean)

    def _orders(self, history: NDArray[np.float64]) -> list[tuple[int, ...]]:
        if self.order != "auto":
            return [tuple(self.order)]
        level = history
        for _ in range(self.seasonal_order[1]):
            level = level[self.season :] - level[: -self.season]
        differences = int(kpss(level, result_object=True).pvalue < 0.05)
        return [(p, differences, q) for p, q in FIRST_ORDERS]
