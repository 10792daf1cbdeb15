"""How much worse attacks make forecasts: the share of windows against the rise of their error."""

from __future__ import annotations

import numpy as np

from robustbench_lab.ranking.leaderboard import LeaderboardTable
from robustbench_lab.report import formatting as write
from robustbench_lab.report.page_figures import MOST_CURVES, SERIES, inline_svg, name_curves, page_figure
from robustbench_lab.tasks.forecasting import exceeded

MOST_TIMES, FEWEST_TIMES = 10, 3
FINE = 4
"""Points of a curve from one whole number to the next."""


def error_curve(table: LeaderboardTable, figure_id: str) -> str | None:
    """The share of windows whose error is above k times the clean one, against k, for each ranked row.

    k goes from 1 to 10, or to where no window is left. None where the table is not about forecasts.
    """
    ranked = ((row.name, row.outcomes) for row in table.rows if row.rank is not None)
    rows = [(name, one) for name, one in ranked if one is not None and "clean_mase" in one.columns][:MOST_CURVES]
    if not rows:
        return None
    times = np.linspace(1, MOST_TIMES, FINE * (MOST_TIMES - 1) + 1)
    curves = {name: exceeded(outcomes, times.tolist()) for name, outcomes in rows}
    last = max(np.flatnonzero([one.value for one in curve]).max(initial=0) for curve in curves.values())
    end = min(MOST_TIMES, max(FEWEST_TIMES, int(np.ceil(times[last])) + 1))
    shown = int((times <= end).sum())
    with page_figure(7.2, 3.4 + 0.22 * len(rows)) as figure:
        axes = figure.subplots()
        for curve, color in zip(curves.values(), SERIES, strict=False):
            low, high, value = (
                [100 * getattr(one, side) for one in curve[:shown]] for side in ("low", "high", "value")
            )
            axes.fill_between(times[:shown], low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(times[:shown], value, color=color, linewidth=1.8)
        axes.set_xticks(range(1, end + 1))
        axes.set_xlabel("k")
        axes.set_ylabel("Windows with k times the clean error (%)")
        axes.set_ylim(-2, 102)
        axes.grid()
        name_curves(axes, list(curves))
        text = "; ".join(
            f"{name}: " + ", ".join(f"{100 * curve[FINE * (k - 1)].value:.1f}% at {k}" for k in range(1, end + 1))
            for name, curve in curves.items()
        )
        return inline_svg(figure, figure_id, f"Windows whose error rises k times, {write.heading(table)}", text)


def error_caption(table: LeaderboardTable) -> str:
    """What the figure shows."""
    ranked = sum(row.rank is not None for row in table.rows)
    cut = f" The first {MOST_CURVES} of {ranked} rows." if ranked > MOST_CURVES else ""
    return (
        "Share of the windows whose error (MASE) is more than k times what it is without attack, with 95% bands. The "
        f"broken rate is this share at the k that the objective names, usually 2.{cut}"
    )
