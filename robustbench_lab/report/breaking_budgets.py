"""From distances to robustness at other budgets than the one that was evaluated.

An input found at some distance breaks its sample at every budget from there on. So the distances of any attack give an
upper bound on the robust accuracy at every budget. The bound says something beyond the evaluated budget only where an
attack looked for the nearest adversarial input; attacks within a budget stop at the first they find.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Estimate
from robustbench_lab.records import Outcomes
from robustbench_lab.statistics import clopper_pearson

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Budgets at which a single result is summed up, relative to its own."""


def breaking_budgets(measured: Iterable[tuple[float, Outcomes]]) -> NDArray[np.float64]:
    """The smallest budget at which each sample is known to be broken, `[N]`; infinite where there is none.

    measured: budgets with the outcomes there, on the same N samples. Samples that were wrong from the start have 0.
    """
    known = [
        np.minimum(np.where(np.isnan(one.distance), np.inf, one.distance), np.where(one.robust, np.inf, eps))
        for eps, one in measured
    ]
    return np.asarray(np.minimum.reduce(known), dtype=np.float64)


def at_budget(outcomes: Outcomes, breaking: NDArray[np.float64], eps: float) -> Outcomes:
    """The outcomes at another budget; at 0 a sample is robust when it is right without attack."""
    return replace(outcomes, robust=outcomes.clean_correct & (breaking > eps))


def robust_shares(eps: float, outcomes: Outcomes) -> dict[float, Estimate]:
    """The share of all samples that are robust at a few budgets around the evaluated one, with exact 95% intervals."""
    breaking = breaking_budgets([(eps, outcomes)])
    counts = {eps * factor: int(at_budget(outcomes, breaking, eps * factor).robust.sum()) for factor in FACTORS}
    return {budget: clopper_pearson(count, len(outcomes)) for budget, count in counts.items()}


def median_distance(outcomes: Outcomes) -> float:
    """Of the samples right without attack, infinite where most are not broken at any distance; NaN without samples."""
    distance = outcomes.distance[outcomes.clean_correct]
    return float(np.median(np.where(np.isnan(distance), np.inf, distance))) if len(distance) else float("nan")
