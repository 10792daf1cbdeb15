"""Published figures beside measured ones: what a plugin, or the rule of a leaderboard, says is stated elsewhere."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

from robustbench_lab.catalog import Catalog
from robustbench_lab.contracts import Published, PublishedSubject
from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardTable, main_metric
from robustbench_lab.ranking.leaderboard_rows import LeaderboardRow
from robustbench_lab.ranking.row_summary import NamedMetric
from robustbench_lab.records import Finding, Severity

State = Callable[[PublishedSubject], Published | None]


def with_published(leaderboard: Leaderboard, catalog: Catalog) -> Leaderboard:
    """The same, with what is published about undefended models, and flags where the interval excludes it."""
    known = _KnownModels(catalog)
    tables = tuple(
        replace(table, rows=tuple(_with_published(row, table, leaderboard, known) for row in table.rows))
        if table.has_plain_budget and table.adversary == "adaptive"
        else table
        for table in leaderboard.tables
    )
    return replace(leaderboard, tables=tables)


class _KnownModels:
    """What states figures, by a model's name: looked up once, since a leaderboard may have very many rows."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._found: dict[str, State | None] = {}

    def state(self, label: str) -> State | None:
        name = label.partition("(")[0]
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def _load(self, name: str) -> State | None:
        try:
            where = self._catalog.find("models", name).spec.published
        except UsageError:  # results of a model whose plugin is not installed here
            return None
        if not isinstance(where, str):
            return where  # type: ignore[no-any-return]
        module, _, attribute = where.partition(":")
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]


def _with_published(
    row: LeaderboardRow, table: LeaderboardTable, leaderboard: Leaderboard, known: _KnownModels
) -> LeaderboardRow:
    if row.defense != "none" or table.norm is None:
        return row
    subject = PublishedSubject(row.model, table.dataset, table.objective, table.norm, table.eps)
    published = leaderboard.definition.published_of(subject) or _stated(known, subject)
    if published is None:
        return row
    return replace(row, published=published, findings=(*row.findings, *_disagreements(row, table, published)))


def _stated(known: _KnownModels, subject: PublishedSubject) -> Published | None:
    try:
        state = known.state(subject.model)
        return None if state is None else state(subject)
    except Exception as error:  # of a plugin: it costs its own figures only
        warnings.warn(f"model '{subject.model}' has no published figures: {describe_error(error)}", stacklevel=2)
        return None


def _disagreements(row: LeaderboardRow, table: LeaderboardTable, published: Published) -> Iterator[Finding]:
    """Where the 95% interval of what was measured excludes what is published."""
    main = main_metric(table.metrics)
    for metric in table.metrics:
        side = _side(row, metric, published)
        if side and metric.name == main.name:
            better = (side > 0) == metric.higher_is_better
            code = "better-than-published" if better else "worse-than-published"
            yield Finding(code, Severity.SUSPECT, _text(row, metric, published))
        elif side and metric.name == main.clean:
            yield Finding("clean-unlike-published", Severity.SUSPECT, _text(row, metric, published))


def _side(row: LeaderboardRow, metric: NamedMetric, published: Published) -> int:
    """1 where what was measured lies above what is published, -1 below, 0 where the interval holds it."""
    stated, measured = published.metrics.get(metric.name), row.metrics.get(metric.name)
    if stated is None or measured is None or math.isnan(measured.value):
        return 0
    return int(measured.low > stated) - int(measured.high < stated)


def _text(row: LeaderboardRow, metric: NamedMetric, published: Published) -> str:
    one, stated = row.metrics[metric.name], published.metrics[metric.name]
    scale, unit = (100, "%") if metric.fraction else (1, "")
    name = metric.name.replace("_", " ")
    interval = f"[{scale * one.low:.4g}, {scale * one.high:.4g}]"
    return f"{name} {scale * one.value:.4g}{unit} {interval}, published {scale * stated:.4g}{unit} ({published.source})"
