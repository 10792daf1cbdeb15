"""The leaderboard as CSV: one line a row, with full numbers and everything that sets tables apart."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator

from robustbench_lab.contracts import Estimate
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardRow, LeaderboardTable
from robustbench_lab.report.formatting import printable

FORMULA = ("=", "+", "-", "@")
SEPARATOR = "; "
"""Between several values in one field."""


def render(leaderboard: Leaderboard) -> str:
    """RFC 4180 with a header. A metric that a table's task does not have is left empty.

    Text has no control characters, and none begins as a formula does: spreadsheets would compute it.
    """
    names = list(dict.fromkeys(metric.name for table in leaderboard.tables for metric in table.metrics))
    stated = list(dict.fromkeys(metric.name for table in leaderboard.tables for metric in table.published))
    lines = [dict(_fields(row, table, names, stated)) for table in leaderboard.tables for row in table.rows]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(lines[0]) if lines else ["rank", "model"])
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in line.items()} for line in lines)
    return stream.getvalue()


def _harmless(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text


def _fields(
    row: LeaderboardRow, table: LeaderboardTable, metrics: list[str], stated: list[str]
) -> Iterator[tuple[str, object]]:
    """stated: the metrics of which any row has a published figure."""
    yield from (("task", table.task), ("dataset", table.dataset), ("samples", table.samples))
    yield from (("sample_set", table.sample_set), ("threat_model", table.threat_model), ("norm", table.norm))
    yield from (("eps", table.eps), ("objective", table.objective), ("adversary", table.adversary))
    yield from (("rank", row.rank), ("tied", row.tied), ("model", row.model), ("defense", row.defense))
    yield "variant", row.variant
    for name in metrics:
        yield from _numbers(name, row.metrics.get(name))
    for name in stated:
        yield f"published_{name}", row.published and row.published.metrics.get(name)
    if stated:
        yield "published_in", row.published and row.published.source
    yield "attacks", SEPARATOR.join(attack.label for attack in row.attacks)
    yield "absent_attacks", SEPARATOR.join(f"{one.label} ({one.status}: {one.reason})" for one in row.absent)
    yield "forward_per_sample", row.forward_per_sample
    yield "backward_per_sample", row.backward_per_sample
    yield "wall_seconds", row.wall_seconds
    yield "verdict", row.verdict
    yield "flags", SEPARATOR.join(row.flags)
    yield "seeds", SEPARATOR.join(str(seed) for seed in row.seeds)
    yield "cell_ids", SEPARATOR.join(row.cell_ids)


def _numbers(name: str, estimate: Estimate | None) -> Iterator[tuple[str, float | None]]:
    """A metric and the ends of its interval; empty where it has no value, as in JSON."""
    if estimate is None or math.isnan(estimate.value):
        yield from ((name, None), (f"{name}_low", None), (f"{name}_high", None))
    else:
        yield from ((name, estimate.value), (f"{name}_low", estimate.low), (f"{name}_high", estimate.high))
