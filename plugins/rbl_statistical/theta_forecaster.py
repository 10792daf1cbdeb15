"""The Theta method (Assimakopoulos & Nikolopoulos 2000, https://doi.org/10.1016/S0169-2070(00)00066-2)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from statsmodels.tsa.forecasting.theta import ThetaModel
from torch import nn

from rbl_statistical.fitted_forecaster import Distribution, Fitted
from robustbench_lab.plugin_tools.series_channels import Count, Known, SeriesChannels

ALPHA = 0.2


def theta(
    *, season: Count = 24, horizon: Count | None = None, series: Count | None = None, known: Known = ()
) -> nn.Module:
    """Theta lines 0 and 2 on the deseasonalised series, as in the M3 competition. season: steps; 1: none."""
    return Theta(SeriesChannels("theta", series, tuple(known)), horizon, season).eval()


class Theta(Fitted):
    """statsmodels' own: a series without a season by its test is taken as it is."""

    def fit(self, history: NDArray[np.float64]) -> Distribution:
        """The standard deviation is read off one interval."""
        model = ThetaModel(pd.Series(history), period=self.season, deseasonalize=self.season > 1)
        fit = model.fit(disp=False)
        interval = fit.prediction_intervals(self.horizon, alpha=ALPHA).to_numpy()
        std = (interval[:, 1] - interval[:, 0]) / (2 * norm.ppf(1 - ALPHA / 2))
        return fit.forecast(self.horizon).to_numpy(), std
