"""Stage 6, driven: stored results to a leaderboard, with the tasks and metrics of the installed plugins."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from robustbench_lab import __version__
from robustbench_lab.catalog import Catalog
from robustbench_lab.contracts import Estimate, MetricSpec
from robustbench_lab.errors import RblError, describe_error
from robustbench_lab.evaluation.metric_values import Metric, checked_estimate, measure
from robustbench_lab.provenance import content_hash, file_sha256
from robustbench_lab.ranking import row_summary, row_summary_json
from robustbench_lab.ranking.leaderboard import (
    AttackTraits,
    Leaderboard,
    LeaderboardDefinition,
    NamedMetric,
    build_leaderboard,
    check_tasks,
    group_rows,
    rank_summaries,
)
from robustbench_lab.ranking.published_figures import with_published
from robustbench_lab.ranking.row_summary import RowRules, RowSummary, known_traits, summarise
from robustbench_lab.ranking.row_summary_json import same_summary, summary_from_json, summary_to_json
from robustbench_lab.records import CellRecord, Outcomes
from robustbench_lab.result_store.kept_row import KeptRow

if TYPE_CHECKING:
    from robustbench_lab.result_store import ResultStore

ROWS_AT_ONCE = 20
"""So many rows' outcomes are in memory at a time."""


def rank(records: Sequence[CellRecord], definition: LeaderboardDefinition, catalog: Catalog) -> Leaderboard:
    """Stage 6: stored results to tables."""
    names = {record.cell.task for record in records}
    tasks = {name: catalog.load_factory("tasks", name)() for name in names}
    built = build_leaderboard(
        records, definition, tasks, task_metrics(catalog, names), attack_traits(catalog), shared_changes(catalog)
    )
    return with_published(built, catalog)


def rank_store(
    store: ResultStore, definition: LeaderboardDefinition, catalog: Catalog, tasks: Sequence[str] = ()
) -> Leaderboard:
    """The same tables of all that is stored, or of some tasks, from what the store has kept of their rows.

    Rows whose cells are new or have changed are made from these, and kept. So it costs little more than the rows that
    are shown. The leaderboard has no records, and its rows no outcomes.
    """
    metrics = _metrics_of_all_tasks(catalog)
    ranked = rank_summaries(_Rows(store, catalog, metrics).summaries(tasks), definition, metrics)
    return with_published(ranked, catalog)


def rank_kept(rows: Sequence[KeptRow], definition: LeaderboardDefinition, catalog: Catalog) -> Leaderboard | None:
    """The same from rows of a store alone; None where one of them has to be made from its cells."""
    metrics = _metrics_of_all_tasks(catalog)
    rules = _Rules(catalog, metrics)
    summaries = [summary for row in rows if (summary := rules.kept(row)) is not None]
    if len(summaries) < len(rows):
        return None
    return with_published(rank_summaries(summaries, definition, metrics), catalog)


def _metrics_of_all_tasks(catalog: Catalog) -> Mapping[str, Sequence[NamedMetric]]:
    return task_metrics(catalog, {entry.spec.name for entry in catalog.entries("tasks")})


def keep_new_rows(store: ResultStore, catalog: Catalog, tasks: Sequence[str]) -> None:
    """Make and keep the rows whose cells are new or have changed, so that the next leaderboard comes at once."""
    _Rows(store, catalog, task_metrics(catalog, tasks)).keep_new()


def forged_rows(store: ResultStore, catalog: Catalog) -> Iterator[str]:
    """A line for each row that is kept and says something else than its cells do.

    `rbl leaderboard` believes what is kept; the report and whatever else reads cells does not.
    """
    rows = _Rows(store, catalog, _metrics_of_all_tasks(catalog))
    for some in _parts([row for row in store.leaderboard_rows() if rows.believed(row)]):
        try:
            made = {new.row_id: new for _, new in rows.summarised(some)}
        except (RblError, LookupError, TypeError, ValueError) as error:
            yield f"leaderboard rows cannot be made from their cells: {describe_error(error)}"
            continue
        for row in some:
            if row.row_id not in made or not same_summary(str(row.summary), str(made[row.row_id].summary)):
                yield f"leaderboard row {row.row_id[:16]}: what is kept of it does not follow from its cells"


def attack_traits(catalog: Catalog) -> Mapping[str, AttackTraits]:
    """What the cross-attack diagnostics need to know of each attack."""
    return {
        entry.spec.name: AttackTraits(entry.spec.baseline, entry.spec.access) for entry in catalog.entries("attacks")
    }


def shared_changes(catalog: Catalog) -> frozenset[str]:
    """Names of the threat models in which one change counts for all samples."""
    return frozenset(entry.spec.name for entry in catalog.entries("threat_models") if entry.spec.shared)


def task_metrics(catalog: Catalog, tasks: Collection[str]) -> Mapping[str, Sequence[NamedMetric]]:
    """The metrics of each task, by whichever plugin. What computes them is imported when it is called."""
    metrics: dict[str, list[NamedMetric]] = {task: [] for task in tasks}
    for entry in catalog.entries("metrics"):
        spec = entry.spec
        for task in metrics.keys() & set(spec.tasks):
            metrics[task].append(_named(spec, _guarded(spec.name, _loaded_on_use(catalog, spec))))
    return {task: _in_order(ones) for task, ones in metrics.items()}


def cell_metrics(catalog: Catalog) -> dict[str, dict[str, Metric]]:
    """Task to metric name to what computes it, and may raise: whoever closes a cell notes that."""
    metrics: dict[str, dict[str, Metric]] = {}
    for entry in catalog.entries("metrics"):
        for task in entry.spec.tasks:
            metrics.setdefault(task, {})[entry.spec.name] = _loaded_on_use(catalog, entry.spec)
    return metrics


def _loaded_on_use(catalog: Catalog, spec: MetricSpec) -> Metric:
    load = functools.cache(functools.partial(catalog.load_factory, "metrics", spec.name))
    return lambda outcomes: checked_estimate(load()(outcomes), fraction=spec.fraction)


def _in_order(metrics: Sequence[NamedMetric]) -> list[NamedMetric]:
    """The main metric and what it is without attack first, then those that every table has, each by name."""
    main = next((one for one in metrics if one.main), None)
    return sorted(
        metrics, key=lambda one: (main is None or one.name != main.clean, not one.main, not one.brief, one.name)
    )


def _named(spec: MetricSpec, function: Callable[[Outcomes], Estimate]) -> NamedMetric:
    names = ("higher_is_better", "fraction", "main", "clean", "brief", "objectives")
    return NamedMetric(spec.name, function, **{name: getattr(spec, name) for name in names})


def _guarded(name: str, metric: Metric) -> Metric:
    """A metric that raises costs its own number only."""

    def computed(outcomes: Outcomes) -> Estimate:
        estimate, _ = measure(name, metric, outcomes)
        return estimate

    return computed


class _Rules:
    """What rows are made by here, and whether kept ones were made by the same."""

    def __init__(self, catalog: Catalog, metrics: Mapping[str, Sequence[NamedMetric]]) -> None:
        self.metrics = metrics
        self.traits = attack_traits(catalog)
        self.shared = shared_changes(catalog)
        self.marks = {task: _rules_mark(catalog, task) for task in metrics}

    def kept(self, row: KeptRow) -> RowSummary | None:
        """What is kept of a row; None where there is nothing, or other rules would make something else of its cells."""
        if row.summary is None or row.rules not in self.marks.values():
            return None
        try:
            summary = summary_from_json(row.summary)
        except (ValueError, KeyError, TypeError, IndexError):  # damaged, or written by somebody else
            return None
        known = all(traits == known_traits(self.traits, name) for name, traits in summary.traits.items())
        return summary if known and row.rules == self.marks[summary.subject.task] else None


class _Rows:
    """The rows of a store, kept or made."""

    def __init__(self, store: ResultStore, catalog: Catalog, metrics: Mapping[str, Sequence[NamedMetric]]) -> None:
        self._store = store
        self._catalog = catalog
        self._rules = _Rules(catalog, metrics)

    def summaries(self, tasks: Sequence[str]) -> Iterator[RowSummary]:
        """Of every row of these tasks; none named: of all."""
        missing = []
        for row in self._store.leaderboard_rows(tasks):
            summary = self._rules.kept(row)
            if summary is None:
                missing.append(row)
            else:
                yield summary
        for some in _parts(missing):
            yield from self._made(some)

    def keep_new(self) -> None:
        """Of the tasks whose metrics were given."""
        rows = self._store.leaderboard_rows(list(self._rules.metrics))
        for some in _parts([row for row in rows if row.summary is None]):
            self._made(some)

    def believed(self, row: KeptRow) -> bool:
        """Whether a leaderboard shows what is kept of a row."""
        return self._rules.kept(row) is not None

    def _made(self, rows: Sequence[KeptRow]) -> list[RowSummary]:
        """Made from the cells, and kept."""
        made = list(self.summarised(rows))
        self._store.keep_rows([kept for _, kept in made])
        return [summary for summary, _ in made]

    def summarised(self, rows: Sequence[KeptRow]) -> Iterator[tuple[RowSummary, KeptRow]]:
        """Made from the cells, with what is to be kept."""
        states = {row.row_id: row.state for row in rows}
        records = self._store.cells_of_rows(states)
        metrics = self._rules.metrics
        check_tasks({one.cell.task for one in records}, {task for task, those in metrics.items() if those})
        for subject, ones in group_rows(records):
            task = self._catalog.load_factory("tasks", subject.task)()
            summary = summarise(ones, RowRules(task, metrics[subject.task], self._rules.traits, self._rules.shared))
            mark, text = self._rules.marks[subject.task], summary_to_json(summary)
            yield summary, KeptRow(subject.row_id, states.get(subject.row_id, ""), mark, text)


def _parts(rows: Sequence[KeptRow]) -> Iterator[Sequence[KeptRow]]:
    return (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))


def _rules_mark(catalog: Catalog, task: str) -> str:
    """Names all that a summary follows from, beside the cells and the attacks' traits."""
    plugins = [
        [entry.spec.name, entry.spec.version, entry.plugin.name, entry.plugin.version]
        for kind in ("tasks", "metrics")
        for entry in catalog.entries(kind)
        if entry.spec.name == task or task in entry.spec.tasks
    ]
    return content_hash([_code_mark(), __version__, task, plugins, sorted(shared_changes(catalog))])


@functools.cache
def _code_mark() -> str:
    """Another one when the code changes that makes summaries and reads them."""
    return content_hash([file_sha256(str(module.__file__)) for module in (row_summary, row_summary_json)])
