"""What a metric says of outcomes, looked at before it is believed: a plugin's metric can cost its own number only."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import PluginError, describe_error
from robustbench_lab.records import Finding, Outcomes, Severity

Metric = Callable[[Outcomes], Estimate]
NO_VALUE = Estimate(math.nan, math.nan, math.nan)


def measure(name: str, metric: Metric, outcomes: Outcomes) -> tuple[Estimate, tuple[Finding, ...]]:
    """What a metric gives. Where that is nothing that can be stored: no value, a warning, and a finding saying why."""
    try:
        return checked_estimate(metric(outcomes)), ()
    except (Exception, SystemExit) as error:
        message = f"metric '{name}' has no value: {describe_error(error)}"
        warnings.warn(message, stacklevel=2)
        return NO_VALUE, (Finding("metric-failed", Severity.INFO, message),)


def checked_estimate(found: object, *, fraction: bool = False) -> Estimate:
    """Raise PluginError unless it is an estimate whose interval, as far as there is one, holds its value.

    fraction: it is declared as a share of 1.
    """
    if not isinstance(found, Estimate):
        raise PluginError(f"it gave a {type(found).__name__}, not an Estimate")
    try:
        estimate = Estimate(float(found.value), float(found.low), float(found.high))
    except (TypeError, ValueError) as error:
        raise PluginError(f"it gave what are no numbers: {describe_error(error)}") from error
    if estimate.low > estimate.value or estimate.value > estimate.high:
        ends = f"{estimate.low:g} to {estimate.high:g}"
        raise PluginError(f"its value {estimate.value:g} lies outside of its own interval, {ends}")
    if fraction and (estimate.value < 0 or estimate.value > 1):
        raise PluginError(f"it gave {estimate.value:g}, which is no share of 1: declare fraction=False")
    return estimate
