"""Stage 6: stored results to tables of comparable rows. Pure: no database, no catalog, no torch.

Rows stand in one table only when they are about the same samples, threat model, objective and kind of adversary.
A row is one defended model; it counts a sample as robust when no attack of the row broke that sample (the worst case
per sample, which is never above the minimum of the attacks' means).

Ranks are about the share of samples that stay robust, whatever the rows are sorted by; in tasks whose main metric is
no such share (mAP), about that metric. Rows that a paired test (McNemar's, or the paired bootstrap) cannot tell from
the first of their group share its rank, shown as `1=`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from robustbench_lab.comparable_cells import RowSubject, subject_of
from robustbench_lab.contracts import Access, Task
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.ranking.leaderboard_definition import LeaderboardDefinition
from robustbench_lab.ranking.leaderboard_rows import LeaderboardRow, build_row, flag_codes
from robustbench_lab.ranking.row_summary import AttackTraits, NamedMetric, RowRules, RowSummary, group_by, summarise
from robustbench_lab.records import CellRecord
from robustbench_lab.statistics import paired_bootstrap, rank_rows, tied_ranks

__all__ = [
    "AttackTraits",
    "Leaderboard",
    "LeaderboardDefinition",
    "LeaderboardRow",
    "LeaderboardTable",
    "NamedMetric",
    "build_leaderboard",
    "check_tasks",
    "flag_codes",
    "group_by",
    "group_rows",
    "rank_summaries",
]

OTHER_SORT_KEYS = ("model", "passes", "seconds")


@dataclass(frozen=True)
class LeaderboardTable:
    """Rows that may be compared: same samples, threat model, objective and kind of adversary."""

    task: str
    dataset: str
    sample_set: str
    """Identity of the samples."""
    samples: int
    threat_model: str
    norm: str | None
    eps: float
    objective: str
    adversary: str
    metrics: tuple[NamedMetric, ...]
    """Columns, in the order of the task."""
    sort: str
    """The definition's key where the task has it, otherwise the task's own."""
    rows: tuple[LeaderboardRow, ...]
    """Ranked rows first."""

    @property
    def main_metric(self) -> NamedMetric:
        """The one sorted by, or the task's own where rows are sorted by something else."""
        return next((metric for metric in self.metrics if metric.name == self.sort), main_metric(self.metrics))

    @property
    def has_plain_budget(self) -> bool:
        """Whether norm and eps say all about the threat model."""
        name, _, params = self.threat_model.rstrip(")").partition("(")
        return name == self.norm and (not params or (params.startswith("eps=") and "," not in params))

    @property
    def published(self) -> tuple[NamedMetric, ...]:
        """The metrics of which a row has a published figure."""
        stated = {name for row in self.rows if row.published for name in row.published.metrics}
        return tuple(metric for metric in self.metrics if metric.name in stated)


@dataclass(frozen=True)
class Leaderboard:
    """The tables, the rule they follow, and the results they rest on."""

    definition: LeaderboardDefinition
    tables: tuple[LeaderboardTable, ...]
    records: tuple[CellRecord, ...]
    """Empty where the rows were made from what the database has kept of them."""


def build_leaderboard(
    records: Iterable[CellRecord],
    definition: LeaderboardDefinition,
    tasks: Mapping[str, Task],
    metrics: Mapping[str, Sequence[NamedMetric]],
    attacks: Mapping[str, tuple[bool, Access]],
    shared: Collection[str] = (),
) -> Leaderboard:
    """The leaderboard of the records that `definition` admits.

    tasks, metrics: by the task's name. attacks: name to `AttackTraits` (baseline or not, access); the cross-attack
    diagnostics leave attacks out that are not named. shared: names of the threat models of `ThreatModelSpec.shared`.
    Raises UsageError where a result's task or its metrics are not there, or no task has the metric to sort by.
    """
    admitted = tuple(one for one in records if definition.admits(one.cell))
    check_tasks({one.cell.task for one in admitted}, {name for name in tasks if metrics.get(name)})
    summaries = [
        summarise(ones, RowRules(tasks[subject.task], metrics[subject.task], attacks, shared))
        for subject, ones in group_rows(admitted)
    ]
    return rank_summaries(summaries, definition, metrics, admitted)


def group_rows(records: Iterable[CellRecord]) -> Iterator[tuple[RowSubject, list[CellRecord]]]:
    """The records of each row, with what they have in common."""
    for ones in group_by(records, lambda one: subject_of(one.cell).key).values():
        yield subject_of(ones[0].cell), ones


def rank_summaries(
    summaries: Iterable[RowSummary],
    definition: LeaderboardDefinition,
    metrics: Mapping[str, Sequence[NamedMetric]],
    records: Sequence[CellRecord] = (),
) -> Leaderboard:
    """The leaderboard of the rows that `definition` admits. Raises UsageError where no task has the metric to sort by.

    records: what the summaries were made from, for reports that show single cells.
    """
    admitted = [one for one in summaries if definition.admits(one.subject)]
    _check_sort(definition.sort, {one.subject.task for one in admitted}, metrics)
    tables = [
        _build_table(ones, definition, metrics[ones[0].subject.task])
        for ones in group_by(admitted, lambda one: one.subject.table).values()
    ]
    return Leaderboard(definition, tuple(sorted(tables, key=_table_order)), tuple(records))


def _table_order(table: LeaderboardTable) -> tuple[object, ...]:
    """By task, dataset and budget; of several sample sets the largest first."""
    budget = (table.norm or "", table.threat_model.partition("(")[0], table.eps, table.threat_model)
    return (table.task, table.dataset, -table.samples, table.sample_set, *budget, table.objective, table.adversary)


def _build_table(
    summaries: Sequence[RowSummary], definition: LeaderboardDefinition, metrics: Sequence[NamedMetric]
) -> LeaderboardTable:
    tried = frozenset(name.label for one in summaries for name in one.tried if name.done and not name.baseline)
    built = [(one.subject.defended_model, build_row(one, definition.required_attacks, tried)) for one in summaries]
    rows = _name_variants(built)
    subject = summaries[0].subject
    sort = _sort_key(definition.sort, metrics)
    return LeaderboardTable(
        task=subject.task,
        dataset=subject.dataset.label,
        sample_set=subject.sample_set,
        samples=subject.samples,
        threat_model=subject.threat_model.label,
        norm=subject.norm,
        eps=subject.eps,
        objective=subject.objective.label,
        adversary=subject.adversary,
        metrics=tuple(metrics),
        sort=sort,
        rows=_sorted_rows(_ranked_rows(rows, main_metric(metrics), definition.alpha), sort, metrics),
    )


def main_metric(metrics: Sequence[NamedMetric]) -> NamedMetric:
    """The one that the task names so; the first where it names none."""
    return next((metric for metric in metrics if metric.main), metrics[0])


def _sort_key(asked: str | None, metrics: Sequence[NamedMetric]) -> str:
    """What was asked for, where the task has it; otherwise the task's main metric."""
    if asked is not None and asked in (*(metric.name for metric in metrics), *OTHER_SORT_KEYS):
        return asked
    return main_metric(metrics).name


def _name_variants(rows: Sequence[tuple[tuple[str, str], LeaderboardRow]]) -> list[LeaderboardRow]:
    """Tell rows apart that have the same labels and are not the same (other weights, another version)."""
    labels = group_by(rows, lambda pair: pair[1].name)
    named = []
    for (model, defense), row in rows:
        alike = [key for key, _ in labels[row.name]]
        same_model = len({one for one, _ in alike}) == 1
        variant = (defense if same_model else model)[:8]
        named.append(replace(row, variant=variant) if len(alike) > 1 else row)
    return named


def _ranked_rows(rows: Sequence[LeaderboardRow], main: NamedMetric, alpha: float) -> list[LeaderboardRow]:
    """Rows with their ranks; rows that cannot be ranked keep none."""
    contest = [row for row in rows if row.rankable and row.robust is not None and _has_value(row, main)]
    places = dict(zip((id(row) for row in contest), _ranks(contest, main, alpha), strict=True))
    counts = Counter(places.values())
    ranks = [places.get(id(row)) for row in rows]
    return [
        replace(row, rank=rank, tied=rank is not None and counts[rank] > 1)
        for row, rank in zip(rows, ranks, strict=True)
    ]


def _has_value(row: LeaderboardRow, main: NamedMetric) -> bool:
    return row.replicates is None or not math.isnan(row.metrics[main.name].value)


def _ranks(contest: Sequence[LeaderboardRow], main: NamedMetric, alpha: float) -> list[int]:
    """By the samples that stay robust, or where the task says so by its main metric on resampled samples."""
    replicates = [row.replicates for row in contest if row.replicates is not None]
    if not contest or len(replicates) < len(contest):
        robust = [row.robust for row in contest if row.robust is not None]
        return rank_rows([float(one.mean()) for one in robust], robust, alpha=alpha) if robust else []
    sign = 1 if main.higher_is_better else -1
    values = [row.metrics[main.name].value for row in contest]
    samples = min((len(row.robust) for row in contest if row.robust is not None), default=None)
    return tied_ranks([sign * value for value in values], paired_bootstrap(replicates, values, samples), alpha)


def _sorted_rows(
    rows: Sequence[LeaderboardRow], sort: str, metrics: Sequence[NamedMetric]
) -> tuple[LeaderboardRow, ...]:
    """Best, cheapest or first in the alphabet on top; rows without a rank below, those without a number last."""
    downwards = any(metric.name == sort and metric.higher_is_better for metric in metrics)

    def order(row: LeaderboardRow) -> tuple[bool, bool, float, str]:
        value = _sort_value(row, sort)
        return (row.rank is None, value is None, 0.0 if value is None else -value if downwards else value, row.name)

    return tuple(sorted(rows, key=order))


def _sort_value(row: LeaderboardRow, sort: str) -> float | None:
    if sort == "model":
        return 0.0
    if sort == "seconds":
        return row.wall_seconds if row.attacks else None
    if sort == "passes":
        passes = (row.forward_per_sample, row.backward_per_sample)
        return None if passes == (None, None) else sum(one or 0.0 for one in passes)
    return row.metrics[sort].value if sort in row.metrics else None


def check_tasks(found: Iterable[str], known: Collection[str]) -> None:
    """Raise UsageError for a task that is found in results and is not known with a metric."""
    for task in sorted(set(found)):
        if task not in known:
            text = f"Stored results are about the task '{task}', but no installed plugin brings it with a metric"
            raise UsageError(f"{text}: install that plugin, or choose another task with --task.")


def _check_sort(sort: str | None, found: Iterable[str], metrics: Mapping[str, Sequence[NamedMetric]]) -> None:
    known = {metric.name for task in found for metric in metrics[task]}
    if sort is not None and known and sort not in known.union(OTHER_SORT_KEYS):
        raise UsageError(f"Cannot sort by '{sort}'.{did_you_mean(sort, known.union(OTHER_SORT_KEYS))}")
