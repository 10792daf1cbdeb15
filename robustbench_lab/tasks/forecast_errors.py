"""How far forecasts are from what came: errors of single windows, the mean over steps and series.

Absolute and squared errors are in units of each series' own standard deviation in training, as the literature on long
horizons reports them: so errors of several series can be averaged. MASE (Hyndman & Koehler 2006) is in units of what
the seasonal naive forecast errs on the training part. Both units come from clean data, never from a perturbed window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Targets = dict[str, Tensor]
"""`future` `[N, H, C]`; `scale` and `unit`, `[N]` or `[N, C]`, above 0."""


def is_forecast(prediction: Any) -> bool:
    """Whether a prediction has the form of point forecasts: a float tensor `[N, H, C]`."""
    return isinstance(prediction, Tensor) and prediction.ndim == 3 and prediction.is_floating_point()


def by_series(units: Tensor) -> Tensor:
    """Units `[N]` or `[N, C]` to `[N, 1, 1]` or `[N, 1, C]`, which values of windows `[N, L, C]` are divided by."""
    return units.reshape(len(units), 1, -1)


def window_mean(values: Tensor) -> Tensor:
    """`[N, H, C]` to `[N]`; infinite where a value is no finite number, so that it counts as an error without limit."""
    mean = values.flatten(1).mean(1)
    return torch.where(mean.isfinite(), mean, torch.inf)


def mae(forecast: Tensor, targets: Targets) -> Tensor:
    """Mean absolute error of each window, in training standard deviations, `[N]`."""
    return window_mean((forecast - targets["future"]).abs() / by_series(targets["unit"]))


def mse(forecast: Tensor, targets: Targets) -> Tensor:
    """Mean squared error of each window, in squared training standard deviations, `[N]`."""
    return window_mean(((forecast - targets["future"]) / by_series(targets["unit"])).square())


def mase(forecast: Tensor, targets: Targets) -> Tensor:
    """Mean absolute scaled error of each window, `[N]`."""
    return window_mean((forecast - targets["future"]).abs() / by_series(targets["scale"]))


def smape(forecast: Tensor, targets: Targets) -> Tensor:
    """Symmetric absolute percentage error of each window, 0 to 2, `[N]`: twice the error by the sum of the sizes.

    As in the M3 and M4 competitions (Makridakis et al. 2020). A step where both are 0 has no error.
    """
    future = targets["future"]
    sizes = forecast.abs() + future.abs()
    return window_mean(torch.where(sizes == 0, 0, 2 * (forecast - future).abs() / sizes))


ERRORS: dict[str, Callable[[Tensor, Targets], Tensor]] = {"mae": mae, "mse": mse, "mase": mase, "smape": smape}
