"""Models that statsmodels fits to each history when it forecasts: black boxes, without gradient."""

import warnings
from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from statsmodels.tools.sm_exceptions import ModelWarning
from torch import Tensor

from robustbench_lab.plugin_tools.series_channels import SeriesChannels, Univariate, as_black_box
from robustbench_lab.tasks.forecast_output import LEVELS

REMEMBERED = 10_000
"""Forecasts that are kept, since clean histories are asked for again and again."""
Distribution = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and standard deviation `[H]` of each step, which is Gaussian."""


class Fitted(Univariate):
    """One fit for every history of every series, so that a perturbed history gives another model too."""

    def __init__(self, channels: SeriesChannels, horizon: int | None, season: int) -> None:
        """season: steps; 1: none."""
        super().__init__(channels, horizon, LEVELS)
        self.season = season
        self._made: dict[tuple[int, bytes], NDArray[np.float64]] = {}

    @abstractmethod
    def fit(self, history: NDArray[np.float64]) -> Distribution:
        """The forecast of one history `[L]`."""

    def one_series(self, history: Tensor) -> Tensor:
        """`[B, L]` to `[B, H, Q]`."""
        rows = history.detach().cpu().double().numpy()
        return as_black_box(torch.from_numpy(np.stack([self._quantiles(row) for row in rows])), history)

    def _quantiles(self, history: NDArray[np.float64]) -> NDArray[np.float64]:
        key = self.horizon, history.tobytes()
        if key not in self._made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ModelWarning)  # a fit that has not quite converged is a fit
                mean, std = self.fit(history)
            if len(self._made) >= REMEMBERED:
                self._made.clear()
            self._made[key] = mean[:, None] + std[:, None] * norm.ppf(LEVELS)
        return self._made[key]
