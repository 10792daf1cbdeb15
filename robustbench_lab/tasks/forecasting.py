"""Forecasting: a window of history `[N, L, C]` to the steps that follow, `[N, H, C]`, both in the data's own units.

Forecasts are points, quantiles or paths (forecast_output.py). Targets: `future` `[N, H, C]`, what came, NaN where
nobody knows; `scale`, `[N]` or `[N, C]`: the mean absolute error of the seasonal naive forecast on each series'
training part, which MASE is in units of; `unit`, of the same shape: the series' standard deviation there; where windows
may overlap, `start` int64 `[N]`: the step of the series at which each future begins; where the windows are of several
series, `block` int64 `[N]`: of which.

Where inputs hold more than the series to forecast: `roles` int64 `[N, channels]` (`Role`), and `input_unit`, of the
same shape: each channel's standard deviation in training; `input_low` and `input_high`, where channels have bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Estimate, Measured
from robustbench_lab.records import Finding, Outcomes, Severity
from robustbench_lab.statistics import clopper_pearson, percentile_interval, wider
from robustbench_lab.tasks.block_bootstrap import block_counts, block_length
from robustbench_lab.tasks.worst_case import broken_by_any

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))
FAR_OFF = 3.0
"""Mean absolute error in training standard deviations above which a model is taken for one of other units."""

POINT_ERRORS = ("mae", "mse", "mase", "smape")
ERRORS = (*POINT_ERRORS, "crps", "quantile_loss")
"""Of each window, before and after an attack."""
INTERVALS = ("coverage", "width")
"""The same, where the model forecasts distributions."""


class Role(IntEnum):
    """What a channel of an input is."""

    SERIES = 0
    """To be forecast."""
    PAST = 1
    """A covariate that is known up to now."""
    KNOWN = 2
    """A covariate whose future is known."""
    FIXED = 3
    """A static feature, or a flag that says where values were observed: no adversary changes it."""


@dataclass(frozen=True)
class Forecasting:
    """All the core knows of forecasters."""

    name: str = "forecasting"
    default_objective: str = "error"
    attacks_all: bool = True

    def kept(self, prediction: Any) -> Any:
        """The forecast's numbers, by what they are."""
        from robustbench_lab.tasks.forecast_output import Paths, Quantiles, is_point

        if is_point(prediction):
            return prediction
        if isinstance(prediction, Quantiles | Paths):
            return {type(prediction).__name__.lower(): prediction.values}
        shape = f"a tensor of shape {list(prediction.shape)}" if hasattr(prediction, "shape") else None
        return {"form": [shape or f"a {type(prediction).__name__}"]}

    def numbers(self, kept: Any) -> Tensor:
        """The forecast's numbers."""
        numbers: Tensor = next(iter(kept.values())) if isinstance(kept, dict) else kept
        return numbers

    def intact(self, prediction: Any, targets: Any) -> Tensor:  # noqa: ARG002 (the protocol's)
        """Whether there is a forecast: none is right or wrong by itself, an attack breaks it by making it worse."""
        return self.numbers(self.kept(prediction)).isfinite().flatten(1).all(1)

    def examine(self, kept: Any, targets: Any, classes: int | None) -> list[Finding]:  # noqa: ARG002
        """Form, horizon, finite numbers, units."""
        from robustbench_lab.tasks.forecast_errors import mae

        if isinstance(kept, dict) and "form" in kept:
            text = f"a forecaster must return a float tensor [N, H, C], Quantiles or Paths; not {kept['form'][0]}"
            return [Finding("not-a-forecast", Severity.FATAL, text)]
        numbers = self.numbers(kept)
        (steps, series), (wanted, all_series) = numbers.shape[1:3], targets["future"].shape[1:]
        if (steps, series) != (wanted, all_series):
            text = f"the model forecasts {steps} steps of {series} series, the data ask for {wanted} of {all_series}"
            return [Finding("horizon", Severity.FATAL, f"{text}: give the dataset the model's own horizon and series")]
        if not bool(numbers.isfinite().all()):
            return [Finding("nan-forecast", Severity.FATAL, "the model forecasts NaN or infinite values on clean data")]
        if not all(bool(((targets[name] > 0) & targets[name].isfinite()).all()) for name in ("scale", "unit")):
            text = "a series has no spread in its training part (scale or unit is 0): leave it out"
            return [Finding("series-scale", Severity.FATAL, text)]
        middle = numbers.median(3).values if numbers.ndim == 4 else numbers
        error = float(mae(middle, targets).mean())
        if error <= FAR_OFF:
            return []
        text = f"forecasts are {error:.3g} standard deviations off on average: a model must take and give the data's"
        return [Finding("forecast-far-off", Severity.SUSPECT, f"{text} own units, with its normalisation inside")]

    def measure(self, prediction: Any, targets: Any) -> Mapping[str, Tensor]:
        """The errors of each window, `[N]` each, and the forecast's mean level in training standard deviations."""
        from robustbench_lab.tasks.forecast_errors import by_series, errors
        from robustbench_lab.tasks.forecast_output import point

        middle = point(prediction)
        level = (middle / by_series(targets["unit"])).flatten(1).mean(1)
        steps = level.new_full((len(level),), middle.shape[1])
        place = {name: targets[name] for name in ("start", "block") if name in targets}
        return {**errors(prediction, targets), "level": level, "steps": steps, **place}

    def columns(self, clean: Measured, attacked: Measured) -> Measured:
        """Errors of each window before and after, how far its forecast has moved, and where it lies."""
        names = (*ERRORS, *(name for name in INTERVALS if name in clean))
        return {
            **{f"clean_{name}": clean[name].astype(np.float32) for name in names},
            **{f"robust_{name}": attacked[name].astype(np.float32) for name in names},
            "magnitude": clean["magnitude"].astype(np.float32),
            "shift": (attacked["level"] - clean["level"]).astype(np.float32),
            "damage": attacked["damage"].astype(np.float32),
            "steps": clean["steps"].astype(np.int32),
            **{name: clean[name].astype(np.int64) for name in ("start", "block") if name in clean},
        }

    def worst_case(self, outcomes: Sequence[Outcomes]) -> Outcomes:
        """Of each window the attack that did most damage; its distance is the smallest that broke it."""
        worst = np.argmax(np.stack([one.columns["damage"] for one in outcomes]), axis=0)
        window = np.arange(len(worst))
        columns = {
            name: np.stack([one.columns[name] for one in outcomes])[worst, window] for name in outcomes[0].columns
        }
        return broken_by_any(outcomes, columns)

    def replicates(self, outcomes: Outcomes) -> NDArray[np.float64]:
        """MASE under attack on resampled windows."""
        return _resampled(outcomes, outcomes.columns["robust_mase"])


def clean_mase(outcomes: Outcomes) -> Estimate:
    """Mean absolute scaled error of the clean windows, with a 95% block-bootstrap interval."""
    return _mean(outcomes, "clean_mase")


def robust_mase(outcomes: Outcomes) -> Estimate:
    """Mean absolute scaled error under attack, with a 95% block-bootstrap interval."""
    return _mean(outcomes, "robust_mase")


def clean_mae(outcomes: Outcomes) -> Estimate:
    """Mean absolute error of the clean windows, in standard deviations of each series' training part."""
    return _mean(outcomes, "clean_mae")


def robust_mae(outcomes: Outcomes) -> Estimate:
    """Mean absolute error under attack, in standard deviations of each series' training part."""
    return _mean(outcomes, "robust_mae")


def clean_mse(outcomes: Outcomes) -> Estimate:
    """Mean squared error of the clean windows, in variances of each series' training part."""
    return _mean(outcomes, "clean_mse")


def robust_mse(outcomes: Outcomes) -> Estimate:
    """Mean squared error under attack, in variances of each series' training part."""
    return _mean(outcomes, "robust_mse")


def clean_rmse(outcomes: Outcomes) -> Estimate:
    """Root of the mean squared error of the clean windows, in standard deviations of each series' training part."""
    return _root_mean(outcomes, "clean_mse")


def robust_rmse(outcomes: Outcomes) -> Estimate:
    """Root of the mean squared error under attack, in standard deviations of each series' training part."""
    return _root_mean(outcomes, "robust_mse")


def clean_smape(outcomes: Outcomes) -> Estimate:
    """Symmetric mean absolute percentage error of the clean windows, 0 to 200%."""
    return _mean(outcomes, "clean_smape")


def robust_smape(outcomes: Outcomes) -> Estimate:
    """Symmetric mean absolute percentage error under attack, 0 to 200%."""
    return _mean(outcomes, "robust_smape")


def clean_crps(outcomes: Outcomes) -> Estimate:
    """Continuous ranked probability score of the clean windows, in training standard deviations."""
    return _mean(outcomes, "clean_crps")


def robust_crps(outcomes: Outcomes) -> Estimate:
    """Continuous ranked probability score under attack, in training standard deviations."""
    return _mean(outcomes, "robust_crps")


def clean_wql(outcomes: Outcomes) -> Estimate:
    """Weighted quantile loss of the clean windows: all quantile losses by the sum of all sizes of what came."""
    return _quotient(outcomes, "clean_quantile_loss", "magnitude")


def robust_wql(outcomes: Outcomes) -> Estimate:
    """Weighted quantile loss under attack."""
    return _quotient(outcomes, "robust_quantile_loss", "magnitude")


def clean_coverage(outcomes: Outcomes) -> Estimate:
    """Share of what came within the central 80% interval of clean windows; NaN for point forecasts."""
    return _mean(outcomes, "clean_coverage")


def robust_coverage(outcomes: Outcomes) -> Estimate:
    """Share of what came within the central 80% interval under attack; NaN for point forecasts."""
    return _mean(outcomes, "robust_coverage")


def clean_width(outcomes: Outcomes) -> Estimate:
    """Width of the central 80% interval of clean windows, in training standard deviations; NaN for point forecasts."""
    return _mean(outcomes, "clean_width")


def robust_width(outcomes: Outcomes) -> Estimate:
    """Width of the central 80% interval under attack, in training standard deviations; NaN for point forecasts."""
    return _mean(outcomes, "robust_width")


def error_rise(outcomes: Outcomes) -> Estimate:
    """How many times the error is under attack what it is without: the quotient of the two MASEs."""
    return _quotient(outcomes, "robust_mase", "clean_mase")


def forecast_shift(outcomes: Outcomes) -> Estimate:
    """How far attacks move the mean of a forecast, upwards, in standard deviations of each series' training part."""
    return _mean(outcomes, "shift")


def broken_rate(outcomes: Outcomes) -> Estimate:
    """Share of the windows whose error an attack has made so many times larger that they count as broken."""
    return _shares(outcomes, ~outcomes.robust[:, None])[0]


def exceeded(outcomes: Outcomes, times: Sequence[float]) -> list[Estimate]:
    """For each number k the share of the windows whose error is above k times the clean one."""
    limits = outcomes.columns["clean_mase"][:, None] * np.asarray(times)
    return _shares(outcomes, outcomes.columns["robust_mase"][:, None] > limits)


def _shares(outcomes: Outcomes, hits: NDArray[np.bool_]) -> list[Estimate]:
    """Of each column of `[N, K]` the share that is true: its block-bootstrap or its exact interval, the wider one."""
    replicates, windows = _resampled(outcomes, hits), len(hits)
    counts = hits.sum(axis=0).tolist()
    return [
        wider(percentile_interval(count / windows, drawn), clopper_pearson(count, windows))
        for count, drawn in zip(counts, replicates.T, strict=True)
    ]


def _mean(outcomes: Outcomes, column: str) -> Estimate:
    if column not in outcomes.columns:
        return UNKNOWN
    values = outcomes.columns[column]
    return percentile_interval(float(values.mean(dtype=np.float64)), _resampled(outcomes, values))


def _root_mean(outcomes: Outcomes, column: str) -> Estimate:
    values = outcomes.columns[column]
    return percentile_interval(float(np.sqrt(values.mean(dtype=np.float64))), np.sqrt(_resampled(outcomes, values)))


def _quotient(outcomes: Outcomes, above: str, below: str) -> Estimate:
    """The quotient of two columns' means; unknown where what is divided by is 0."""
    if not (above in outcomes.columns and below in outcomes.columns and outcomes.columns[below].any()):
        return UNKNOWN
    one, other = outcomes.columns[above], outcomes.columns[below]
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = _resampled(outcomes, one) / _resampled(outcomes, other)
    return percentile_interval(float(one.mean(dtype=np.float64) / other.mean(dtype=np.float64)), replicates)


def _resampled(outcomes: Outcomes, values: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of values `[N, ...]` on resampled windows, `[R, ...]`; infinite where a window's is."""
    order, overlapping = _in_time(outcomes.columns, len(values))
    counts = block_counts(len(values), block_length(len(values), overlapping))
    values = values[order]
    finite = np.isfinite(values)
    means: NDArray[np.float64] = counts @ np.where(finite, values, 0).astype(np.float64) / len(values)
    means[counts @ ~finite > 0] = np.inf
    return means


def _in_time(columns: Measured, windows: int) -> tuple[NDArray[np.int64], int]:
    """The windows `[N]` so that neighbours stand side by side, series by series, and how many forecast the same step.

    As they are, and 1, where nobody says how they lie.
    """
    if "start" not in columns:
        return np.arange(windows), 1
    series = columns.get("block", np.zeros(windows, dtype=np.int64))
    order = np.lexsort((columns["start"], series))
    apart = np.diff(columns["start"][order])[np.diff(series[order]) == 0]
    stride = max(1, int(np.median(apart))) if len(apart) else int(columns["steps"][0])
    return order, int(-(-int(columns["steps"][0]) // stride))
