"""The report's figures, as inline SVG that follows the page's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robustbench_lab.contracts import Estimate
from robustbench_lab.ranking.leaderboard import LeaderboardRow, LeaderboardTable, NamedMetric
from robustbench_lab.report import formatting as write
from robustbench_lab.report.breaking_budgets import at_budget, breaking_budgets
from robustbench_lab.report.page_figures import (
    MARKERS,
    MOST_CURVES,
    NAME_WIDTH,
    QUIET,
    SERIES,
    TEXT,
    inline_svg,
    name_curves,
    page_figure,
)

MOST_ROWS = 40
FINE_POINTS = 96
"""Budgets of a curve that comes from distances."""
SHOWN_SHARE = 0.95
"""Share of the broken samples whose distances such a curve goes on for; a few far ones would squeeze the rest."""


@dataclass(frozen=True)
class Curve:
    """A defended model's main metric at several budgets, from 0 up."""

    name: str
    eps: tuple[float, ...]
    estimates: tuple[Estimate, ...]
    evaluated: tuple[float, ...]
    """Those of the budgets that were evaluated as such, and 0; the others follow from distances."""

    @property
    def fine(self) -> bool:
        """Whether it comes from the distances of an attack that looked for the nearest inputs."""
        return self.eps != self.evaluated


def comparison(table: LeaderboardTable, figure_id: str) -> str | None:
    """A dot with its interval for each row, in the order of the table; None where no row has a result."""
    rows = [row for row in table.rows if row.metrics][:MOST_ROWS]
    if not rows:
        return None
    metric = table.main_metric
    others = compared_with(table)
    scale = 100 if metric.fraction else 1
    with page_figure(7.2, 0.9 + 0.3 * len(rows)) as figure:
        axes = figure.subplots()
        for height, row in enumerate(reversed(rows)):
            one = row.metrics[metric.name]
            color = QUIET if row.rank is None else SERIES[0]
            axes.plot([scale * one.low, scale * one.high], [height, height], color=color, linewidth=3, alpha=0.45)
            axes.plot(scale * one.value, height, "x" if row.rank is None else "o", color=color, markersize=7)
            for other in others:
                value = scale * row.metrics[other.name].value
                axes.plot(value, height, "o", color=TEXT, markersize=6, fillstyle="none")
        axes.set_yticks(range(len(rows)), [_name(row) for row in reversed(rows)])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlabel(_axis_title(metric))
        if metric.fraction:
            axes.set_xlim(-2, 102)
        axes.grid(axis="x")
        text = "; ".join(
            f"{row.name}: {write.estimate_text(row.metrics[metric.name], fraction=metric.fraction)}" for row in rows
        )
        return inline_svg(figure, figure_id, f"{write.metric_title(metric.name)}, {write.heading(table)}", text)


def compared_with(table: LeaderboardTable) -> list[NamedMetric]:
    """What stands beside the main metric: itself without attack, or all on its scale where nothing is named so."""
    main = table.main_metric
    if main.clean is not None:
        return [one for one in table.metrics if one.name == main.clean]
    return [one for one in table.metrics if one != main and one.fraction == main.fraction]


def security_curves(tables: Sequence[LeaderboardTable]) -> list[Curve]:
    """One curve for each ranked row of tables that differ in nothing but the budget.

    At budget 0 a sample is robust when it is right without attack. Where a minimum-norm attack belongs to the row, the
    curve has a point every few budgets, from the distances at which the row's attacks broke the samples.
    """
    rows: dict[str, dict[float, LeaderboardRow]] = {}
    for table in sorted(tables, key=lambda one: one.eps):
        for row in table.rows:
            if row.rank is not None and row.outcomes is not None:
                rows.setdefault(row.name, {})[table.eps] = row
    return [_curve(name, found, tables[0].main_metric) for name, found in rows.items()]


def _curve(name: str, rows: Mapping[float, LeaderboardRow], metric: NamedMetric) -> Curve:
    """rows: one defended model's, by the budget."""
    measured = {eps: row.outcomes for eps, row in rows.items() if row.outcomes is not None}
    breaking = breaking_budgets(measured.items())
    first = next(iter(measured.values()))
    evaluated = (0.0, *measured)
    # Only where the metric is about robust samples do distances tell of other budgets.
    if first.columns or not any(row.minimum_norm for row in rows.values()):
        known = (row.metrics[metric.name] for row in rows.values())
        clean = next(iter(rows.values())).metrics.get(metric.clean or "")
        start = metric.function(at_budget(first, breaking, 0.0)) if clean is None else clean
        return Curve(name, evaluated, (start, *known), evaluated)
    broken = breaking[np.isfinite(breaking) & (breaking > 0)]
    end = max([*measured, float(np.quantile(broken, SHOWN_SHARE)) if len(broken) else 0.0])
    budgets = sorted({*np.linspace(0, end, FINE_POINTS).tolist(), *evaluated})
    estimates = tuple(metric.function(at_budget(first, breaking, eps)) for eps in budgets)
    return Curve(name, tuple(budgets), estimates, evaluated)


def security_curve(curves: Sequence[Curve], table: LeaderboardTable, figure_id: str) -> str:
    """The main metric against the budget with its intervals; `table` is any of those the curves come from."""
    metric = table.main_metric
    scale = 100 if metric.fraction else 1
    shown = curves[:MOST_CURVES]
    with page_figure(7.2, 4.0 + 0.22 * len(shown)) as figure:
        axes = figure.subplots()
        for curve, color, marker in zip(shown, SERIES, MARKERS, strict=False):
            low, high, value = (
                [scale * getattr(one, end) for one in curve.estimates] for end in ("low", "high", "value")
            )
            axes.fill_between(curve.eps, low, high, color=color, alpha=0.15, linewidth=0)
            marked = [place for place, eps in enumerate(curve.eps) if eps in curve.evaluated]
            axes.plot(curve.eps, value, marker=marker, markevery=marked, color=color, linewidth=1.8, markersize=6)
        if not any(curve.fine for curve in shown):
            budgets = sorted({eps for curve in shown for eps in curve.eps})
            axes.set_xticks(budgets, [write.eps_text(eps) for eps in budgets])
        axes.set_xlabel(f"Budget ({write.printable(table.norm or table.threat_model)})")
        axes.set_ylabel(_axis_title(metric))
        if metric.fraction:
            axes.set_ylim(-2, 102)
        axes.grid()
        name_curves(axes, [curve.name for curve in shown])
        title = f"{write.metric_title(metric.name)} against budget, {write.printable(table.dataset)}"
        return inline_svg(figure, figure_id, title, "; ".join(_describe(curve, metric) for curve in shown))


def _describe(curve: Curve, metric: NamedMetric) -> str:
    points = (
        f"{write.value_text(one, fraction=metric.fraction)} at {write.eps_text(eps)}"
        for eps, one in zip(curve.eps, curve.estimates, strict=True)
        if eps in curve.evaluated
    )
    return f"{curve.name}: {', '.join(points)}"


def _name(row: LeaderboardRow) -> str:
    return write.shorten(write.printable(row.name), NAME_WIDTH)


def _axis_title(metric: NamedMetric) -> str:
    return f"{write.metric_title(metric.name)} (%)" if metric.fraction else write.metric_title(metric.name)
