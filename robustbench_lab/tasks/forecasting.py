"""Forecasting: a window of history `[N, L, C]` to the steps that follow, `[N, H, C]`, both in the data's own units.

Forecasts are points; quantiles and samples are not known yet. Targets: `future` `[N, H, C]`, what came; `scale`,
`[N]` or `[N, C]`: the mean absolute error of the seasonal naive forecast on each series' training part, which MASE is
in units of; `unit`, of the same shape: the series' standard deviation there; and, where windows may overlap, `start`
int64 `[N]`: the step of the series at which each future begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Estimate, Measured
from robustbench_lab.records import Finding, Outcomes, Severity
from robustbench_lab.statistics import percentile_interval
from robustbench_lab.tasks.block_bootstrap import block_counts, block_length
from robustbench_lab.tasks.worst_case import broken_by_any

if TYPE_CHECKING:
    from torch import Tensor

FAR_OFF = 3.0
"""Mean absolute error in training standard deviations above which a model is taken for one of other units."""


@dataclass(frozen=True)
class Forecasting:
    """All the core knows of forecasters."""

    name: str = "forecasting"
    default_objective: str = "error"
    attacks_all: bool = True

    def kept(self, prediction: Any) -> Any:
        """The forecast."""
        from robustbench_lab.tasks.forecast_errors import is_forecast

        if is_forecast(prediction):
            return prediction
        shape = f"a tensor of shape {list(prediction.shape)}" if hasattr(prediction, "shape") else None
        return {"form": [shape or f"a {type(prediction).__name__}"]}

    def numbers(self, kept: Any) -> Tensor:
        """The forecast."""
        numbers: Tensor = kept
        return numbers

    def intact(self, prediction: Tensor, targets: Any) -> Tensor:  # noqa: ARG002 (the protocol's)
        """Whether there is a forecast: none is right or wrong by itself, an attack breaks it by making it worse."""
        return prediction.isfinite().flatten(1).all(1)

    def examine(self, kept: Any, targets: Any, classes: int | None) -> list[Finding]:  # noqa: ARG002
        """Form, horizon, finite numbers, units."""
        from robustbench_lab.tasks.forecast_errors import mae

        if isinstance(kept, dict):
            text = f"a forecaster must return a float tensor [N, H, C]; this model returns {kept['form'][0]}"
            return [Finding("not-a-forecast", Severity.FATAL, text)]
        (steps, series), (wanted, all_series) = kept.shape[1:], targets["future"].shape[1:]
        if (steps, series) != (wanted, all_series):
            text = f"the model forecasts {steps} steps of {series} series, the data ask for {wanted} of {all_series}"
            return [Finding("horizon", Severity.FATAL, f"{text}: give the dataset the model's own horizon and series")]
        if not bool(kept.isfinite().all()):
            return [Finding("nan-forecast", Severity.FATAL, "the model forecasts NaN or infinite values on clean data")]
        if not all(bool(((targets[name] > 0) & targets[name].isfinite()).all()) for name in ("scale", "unit")):
            text = "a series has no spread in its training part (scale or unit is 0): leave it out"
            return [Finding("series-scale", Severity.FATAL, text)]
        error = float(mae(kept, targets).mean())
        if error <= FAR_OFF:
            return []
        text = f"forecasts are {error:.3g} standard deviations off on average: a model must take and give the data's"
        return [Finding("forecast-far-off", Severity.SUSPECT, f"{text} own units, with its normalisation inside")]

    def measure(self, prediction: Tensor, targets: Any) -> Mapping[str, Tensor]:
        """The errors of each window, `[N]` each, and the forecast's mean level in training standard deviations."""
        from robustbench_lab.tasks.forecast_errors import ERRORS, by_series, window_mean

        errors = {name: error(prediction, targets) for name, error in ERRORS.items()}
        level = window_mean(prediction / by_series(targets["unit"]))
        steps = level.new_full((len(level),), prediction.shape[1])
        place = {"start": targets["start"]} if "start" in targets else {}
        return {**errors, "level": level, "steps": steps, **place}

    def columns(self, clean: Measured, attacked: Measured) -> Measured:
        """Errors of each window before and after, how far its forecast has moved, and where it lies."""
        from robustbench_lab.tasks.forecast_errors import ERRORS

        return {
            **{f"clean_{name}": clean[name].astype(np.float32) for name in ERRORS},
            **{f"robust_{name}": attacked[name].astype(np.float32) for name in ERRORS},
            "shift": (attacked["level"] - clean["level"]).astype(np.float32),
            "damage": attacked["damage"].astype(np.float32),
            "steps": clean["steps"].astype(np.int32),
            **({"start": clean["start"].astype(np.int64)} if "start" in clean else {}),
        }

    def worst_case(self, outcomes: Sequence[Outcomes]) -> Outcomes:
        """Of each window the attack with the largest error; its distance is the smallest that broke it."""
        worst = np.argmax(np.stack([one.columns["robust_mase"] for one in outcomes]), axis=0)
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


def error_rise(outcomes: Outcomes) -> Estimate:
    """How many times the error is under attack what it is without: the quotient of the two MASEs."""
    clean, robust = outcomes.columns["clean_mase"], outcomes.columns["robust_mase"]
    if not clean.any():
        return percentile_interval(float("nan"), np.empty(0))
    with np.errstate(divide="ignore"):
        replicates = _resampled(outcomes, robust) / _resampled(outcomes, clean)
    return percentile_interval(float(robust.mean(dtype=np.float64) / clean.mean(dtype=np.float64)), replicates)


def forecast_shift(outcomes: Outcomes) -> Estimate:
    """How far attacks move the mean of a forecast, upwards, in standard deviations of each series' training part."""
    return _mean(outcomes, "shift")


def broken_rate(outcomes: Outcomes) -> Estimate:
    """Share of the windows whose error an attack has made so many times larger that they count as broken."""
    broken = 1.0 - outcomes.robust
    return percentile_interval(float(broken.mean()), _resampled(outcomes, broken))


def _mean(outcomes: Outcomes, column: str) -> Estimate:
    values = outcomes.columns[column]
    return percentile_interval(float(values.mean(dtype=np.float64)), _resampled(outcomes, values))


def _root_mean(outcomes: Outcomes, column: str) -> Estimate:
    values = outcomes.columns[column]
    return percentile_interval(float(np.sqrt(values.mean(dtype=np.float64))), np.sqrt(_resampled(outcomes, values)))


def _resampled(outcomes: Outcomes, values: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of values `[N]` on resampled windows, `[R]`; infinite where a window's is."""
    counts = block_counts(len(values), block_length(len(values), _overlapping(outcomes.columns)))
    finite = np.isfinite(values)
    means: NDArray[np.float64] = counts @ np.where(finite, values, 0).astype(np.float64) / len(values)
    means[counts @ ~finite > 0] = np.inf
    return means


def _overlapping(columns: Measured) -> int:
    """How many consecutive windows forecast one and the same step; 1 where nobody says how they lie."""
    if "start" not in columns or len(columns["start"]) < 2:
        return 1
    stride = max(1, int(np.median(np.diff(columns["start"]))))
    return int(-(-int(columns["steps"][0]) // stride))
