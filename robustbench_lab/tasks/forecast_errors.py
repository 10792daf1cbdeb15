"""How far forecasts are from what came: errors of single windows, the mean over observed steps and series.

Absolute and squared errors are in units of each series' own standard deviation in training, as the literature on long
horizons reports them: so errors of several series can be averaged. MASE (Hyndman & Koehler 2006) is in units of what
the seasonal naive forecast errs on the training part. Both units come from clean data, never from a perturbed window.
Where the future was not observed (NaN) nothing counts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustbench_lab.tasks.forecast_output import LEVELS, Forecast, Paths, point, width

Targets = dict[str, Tensor]
"""`future` `[N, H, C]`, NaN where not observed; `scale` and `unit`, `[N]` or `[N, C]`, above 0."""


def by_series(units: Tensor) -> Tensor:
    """Units `[N]` or `[N, C]` to `[N, 1, 1]` or `[N, 1, C]`, which values of windows `[N, L, C]` are divided by."""
    return units.reshape(len(units), 1, -1)


def shares(counted: Tensor, units: Tensor | None = None) -> Tensor:
    """What each value of a window weighs in its mean, `[N, H, C]`, in its series' unit.

    counted: `[N, H, C]`, 1 for the values that count, all alike, and 0 for the others. units: as of `by_series`.
    """
    share = counted / counted.flatten(1).sum(1).clamp_min(1)[:, None, None]
    return share if units is None else share / by_series(units)


def weighted_sum(values: Tensor, shares: Tensor) -> Tensor:
    """`[N, H, C]` to `[N]`; infinite where a value is no finite number, so that it counts as an error without limit."""
    return (values * shares).sum((1, 2)).nan_to_num_(torch.inf, torch.inf, torch.inf)


def observed(targets: Targets) -> tuple[Tensor, Tensor]:
    """The future with 0 where it was not observed, and 1 where it was, otherwise 0; `[N, H, C]` both."""
    future = targets["future"]
    return future.nan_to_num(0.0), 1 - future.isnan().to(future.dtype)


def mae(forecast: Tensor, targets: Targets) -> Tensor:
    """Mean absolute error of each window, in training standard deviations, `[N]`."""
    future, seen = observed(targets)
    return weighted_sum((forecast - future).abs(), shares(seen, targets["unit"]))


def mse(forecast: Tensor, targets: Targets) -> Tensor:
    """Mean squared error of each window, in squared training standard deviations, `[N]`."""
    future, seen = observed(targets)
    return weighted_sum(((forecast - future) / by_series(targets["unit"])).square(), shares(seen))


def mase(forecast: Tensor, targets: Targets) -> Tensor:
    """Mean absolute scaled error of each window, `[N]`."""
    future, seen = observed(targets)
    return weighted_sum((forecast - future).abs(), shares(seen, targets["scale"]))


def smape(forecast: Tensor, targets: Targets) -> Tensor:
    """Symmetric absolute percentage error of each window, 0 to 2, `[N]`: twice the error by the sum of the sizes.

    As in the M3 and M4 competitions (Makridakis et al. 2020). A step where both are 0 has no error.
    """
    future, seen = observed(targets)
    sizes = forecast.abs() + future.abs()
    return weighted_sum(torch.where(sizes == 0, 0, 2 * (forecast - future).abs() / sizes), shares(seen))


def quantile_loss(forecast: Forecast, targets: Targets) -> Tensor:
    """Twice the quantile (pinball) loss, its mean over the levels 0.1 to 0.9, in the data's own units, `[N, H, C]`.

    0 where not observed. Of a point forecast it is the absolute error.
    """
    future, seen = observed(targets)
    if isinstance(forecast, Tensor):
        return (forecast - future).abs() * seen
    levels = torch.tensor(LEVELS, dtype=future.dtype, device=future.device)
    missed = future[..., None] - forecast.at(LEVELS)
    return 2 * torch.maximum(levels * missed, (levels - 1) * missed).mean(3) * seen


def crps(forecast: Forecast, targets: Targets) -> Tensor:
    """Continuous ranked probability score of each window, in training standard deviations, `[N]`.

    Of paths the energy form over all pairs of them (Gneiting & Raftery 2007, equation 20); of quantiles twice the mean
    quantile loss (Laio & Tamea 2007), as close as their levels allow; of points the absolute error.
    """
    future, seen = observed(targets)
    paths = forecast.values if isinstance(forecast, Paths) else None
    scores = quantile_loss(forecast, targets) if paths is None else _energy_score(paths, future)
    return weighted_sum(scores, shares(seen, targets["unit"]))


def _energy_score(paths: Tensor, future: Tensor) -> Tensor:
    """The mean distance of paths `[N, H, C, S]` from the future, less half their mean distance from each other."""
    count = paths.shape[3]
    away = (paths - future[..., None]).abs().mean(3)
    # Of sorted values the sum of all distances is linear in them.
    factors = 2 * torch.arange(count, dtype=paths.dtype, device=paths.device) - count + 1
    apart = (paths.sort(dim=3).values * factors).sum(3) / count**2
    return away - apart


def coverage(forecast: Forecast, targets: Targets) -> Tensor:
    """Share of the observed values within the forecast's central 80% interval, `[N]`."""
    if isinstance(forecast, Tensor):
        raise TypeError("points have no interval")
    low, high = forecast.at((LEVELS[0], LEVELS[-1])).unbind(3)
    future, seen = observed(targets)
    return weighted_sum(((low <= future) & (future <= high)).to(future.dtype), shares(seen))


def interval_width(forecast: Forecast, targets: Targets) -> Tensor:
    """Mean width of the central 80% interval, in training standard deviations, `[N]`."""
    wide = width(forecast)
    return weighted_sum(wide, shares(torch.ones_like(wide), targets["unit"]))


POINT_ERRORS: dict[str, Callable[[Tensor, Targets], Tensor]] = {"mae": mae, "mse": mse, "mase": mase, "smape": smape}
"""Of the point forecast, which of a distribution is its median."""


def errors(forecast: Forecast, targets: Targets) -> dict[str, Tensor]:
    """All errors of each window, `[N]` each; those of intervals only where the forecast has any.

    `quantile_loss` and `magnitude` are sums over the window, in the data's own units: their quotient over all windows
    is the weighted quantile loss.
    """
    middle = point(forecast)
    future, _ = observed(targets)
    found = {name: error(middle, targets) for name, error in POINT_ERRORS.items()}
    found["crps"] = crps(forecast, targets)
    found["quantile_loss"] = quantile_loss(forecast, targets).flatten(1).sum(1).nan_to_num(torch.inf, torch.inf)
    found["magnitude"] = future.abs().flatten(1).sum(1)
    if not isinstance(forecast, Tensor):
        found |= {"coverage": coverage(forecast, targets), "width": interval_width(forecast, targets)}
    return found
