"""What metrics and report formats must keep to. Shipped for authors of plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import PluginError, describe_error
from robustbench_lab.evaluation.metric_values import checked_estimate
from robustbench_lab.ranking.leaderboard import Leaderboard
from robustbench_lab.records import Outcomes
from robustbench_lab.testing.example_results import example_leaderboard, example_records

CASES = {
    "some samples broken": (20, 0.9, 0.4),
    "no sample broken": (20, 1.0, 1.0),
    "every sample broken": (20, 1.0, 0.0),
    "no sample right": (20, 0.0, 0.0),
    "a single sample": (1, 1.0, 0.0),
}
"""Samples; shares of them that are right without attack, and robust."""


def check_metric(metric: Callable[[Outcomes], Estimate], *, fraction: bool) -> list[str]:
    """What is wrong with a metric of classifiers, a line each. fraction: whether it is declared a share of 1."""

    def measured(samples: int, right: float, robust: float) -> None:
        place = np.arange(samples) / samples
        distance = np.where(place < robust, np.nan, 0.1).astype(np.float32)
        checked_estimate(metric(Outcomes(place < right, place < robust, distance)), fraction=fraction)

    return _said({case: partial(measured, *shares) for case, shares in CASES.items()})


def check_report(report: Callable[[Leaderboard], str], *, rows_only: bool) -> list[str]:
    """What is wrong with a format of leaderboards, a line each. rows_only: whether it says that it needs no records."""
    full = example_leaderboard(example_records())
    rows = replace(full, records=()) if rows_only else full

    def written(leaderboard: Leaderboard) -> None:
        text = report(leaderboard)
        if not isinstance(text, str):
            raise PluginError(f"it must return text, not {type(text).__name__}")

    cases = {"no results": example_leaderboard([]), "every kind of row": rows}
    return _said({case: partial(written, leaderboard) for case, leaderboard in cases.items()})


def _said(attempts: Mapping[str, Callable[[], None]]) -> list[str]:
    """What the attempts raise: each message once, with the cases it is raised in where these are not all."""
    cases: dict[str, list[str]] = {}
    for case, attempt in attempts.items():
        try:
            attempt()
        except (Exception, SystemExit) as error:
            cases.setdefault(describe_error(error), []).append(case)
    return [
        text if len(those) == len(attempts) else f"with {', '.join(those)}: {text}" for text, those in cases.items()
    ]
