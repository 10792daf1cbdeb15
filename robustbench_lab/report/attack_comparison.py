"""Which attacks come nearest to the worst case of all, and at what cost: the tables of a leaderboard turned round.

Of the samples that any attack broke, the share that one attack breaks by itself, averaged over the defended models of a
table. For attacks that look for the nearest adversarial input also how near they come at every budget: the local
optimality of AttackBench (Cinà et al., AAAI 2025, https://arxiv.org/abs/2404.19460), whose mean over models is its
global optimality. AttackBench stops every attack after 2000 passes; here passes stand beside, and nothing is stopped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Estimate
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardRow, LeaderboardTable
from robustbench_lab.ranking.row_summary import VERDICTS, AttackResult, outcomes_of, version_name
from robustbench_lab.records import CellRecord, Outcomes, Status, Verdict
from robustbench_lab.report.breaking_budgets import breaking_budgets
from robustbench_lab.statistics import clopper_pearson, paired_bootstrap, percentile_interval, tied_ranks, wider
from robustbench_lab.tasks.resampled_images import resampled_counts


@dataclass(frozen=True)
class ComparedAttack:
    """One attack on all defended models of a table."""

    label: str
    baseline: bool
    models: int
    """Defended models that it has results of."""
    found: Estimate
    """Of the samples that any attack broke the share that this one did, the mean over models; NaN where none broke."""
    alone: int
    """Samples that no other attack broke, over all models."""
    optimality: float | None
    """The mean over models of AttackBench's local optimality, 0 to 1; None where the attack stops within a budget."""
    forward_per_sample: float | None
    """Means over models of the sums over its seeds, like the next."""
    backward_per_sample: float | None
    wall_seconds: float
    """The sum over models and seeds."""
    verdict: Verdict | None
    """The worst of its results."""
    cell_ids: tuple[str, ...]
    rank: int | None = None
    """None where it lacks a result of a model, or where no attack broke anything."""
    tied: bool = False

    @property
    def rank_label(self) -> str:
        """`1`, `1=` where it is shared, `—` where there is none."""
        return "—" if self.rank is None else f"{self.rank}{'=' if self.tied else ''}"


@dataclass(frozen=True)
class AttackTable:
    """Attacks that may be compared: same samples, threat model, objective, kind of adversary and models."""

    about: LeaderboardTable
    """The table of the models."""
    models: int
    broken: int
    """Samples that any attack broke, over all models."""
    rows: tuple[ComparedAttack, ...]
    """Ranked ones first."""


@dataclass(frozen=True)
class _OnModel:
    """What one attack did to one model."""

    result: AttackResult
    broken: NDArray[np.bool_]
    """`[N]`: right without attack, and broken."""
    budgets: NDArray[np.float64]
    """`[N]`: from which each sample is known to be broken."""
    minimum_norm: bool
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class _Model:
    """One defended model of a table."""

    right: NDArray[np.bool_]
    """`[N]`: without attack."""
    broken: NDArray[np.bool_]
    """`[N]`: by any attack."""
    attacks: Mapping[str, _OnModel]
    """By their labels."""


def compare_attacks(leaderboard: Leaderboard) -> tuple[AttackTable, ...]:
    """A table of attacks for each table of models that has results. The leaderboard must hold its records."""
    done = {one.cell.cell_id: one for one in leaderboard.records if one.status is Status.OK}
    tables = (_compared(table, done, leaderboard.definition.alpha) for table in leaderboard.tables)
    return tuple(table for table in tables if table.rows)


def _compared(table: LeaderboardTable, done: Mapping[str, CellRecord], alpha: float) -> AttackTable:
    names = _names([done[cell] for row in table.rows for attack in row.attacks for cell in attack.cell_ids])
    models = [_on_model(row, table.eps, done, names) for row in table.rows if row.attacks]
    labels = list(dict.fromkeys(label for model in models for label in model.attacks))
    replicates = dict(zip(labels, _found_on_resamples(labels, models, table.samples), strict=True))
    rows = [_row(label, [one for one in models if label in one.attacks], replicates[label]) for label in labels]
    return AttackTable(
        about=table,
        models=len(models),
        broken=sum(int(one.broken.sum()) for one in models),
        rows=_ranked(rows, replicates, len(models), table.samples, alpha),
    )


def _outcomes(row: LeaderboardRow) -> Outcomes:
    if row.outcomes is None:
        raise ValueError(f"the row of {row.name} was handed over without its per-sample outcomes")
    return row.outcomes


def _names(records: Sequence[CellRecord]) -> dict[str, str]:
    """What the attack of each cell is called: by its label, where the table has one version of it only."""
    versions: dict[str, set[str]] = {}
    for one in records:
        versions.setdefault(one.cell.attack.label, set()).add(one.cell.attack.identity)
    return {
        one.cell.cell_id: version_name(one.cell.attack)
        if len(versions[one.cell.attack.label]) > 1
        else one.cell.attack.label
        for one in records
    }


def _on_model(row: LeaderboardRow, eps: float, done: Mapping[str, CellRecord], names: Mapping[str, str]) -> _Model:
    right = _outcomes(row).clean_correct
    found = {}
    for attack in row.attacks:
        records = [done[one] for one in attack.cell_ids]
        outcomes = [outcomes_of(one) for one in records]
        found[names[attack.cell_ids[0]]] = _OnModel(
            result=attack,
            broken=right & ~np.logical_and.reduce([one.robust for one in outcomes]),
            budgets=breaking_budgets([(eps, one) for one in outcomes]),
            minimum_norm=all(one.minimum_norm for one in records),
            verdicts=tuple(one.verdict for one in records if one.verdict),
        )
    return _Model(right, np.logical_or.reduce([one.broken for one in found.values()]), found)


def _found_on_resamples(labels: Sequence[str], models: Sequence[_Model], samples: int) -> NDArray[np.float64]:
    """`ComparedAttack.found` of each attack on resampled samples, `[attacks, R]`; the same ones for all models."""
    weights = resampled_counts(samples).astype(np.float64)
    shares = np.full((len(models), len(labels), len(weights)), np.nan)
    for model, share in zip(models, shares, strict=True):
        total = weights @ model.broken
        for place, label in enumerate(labels):
            if label in model.attacks:
                np.divide(weights @ model.attacks[label].broken, total, out=share[place], where=total > 0)
    return _mean(shares)


def _mean(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the models, which come first, of those that have a share; NaN where none has."""
    known = ~np.isnan(shares)
    count = known.sum(axis=0)
    return np.where(count, np.where(known, shares, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _row(label: str, models: Sequence[_Model], replicates: NDArray[np.float64]) -> ComparedAttack:
    """models: those that the attack has results of."""
    ones = [model.attacks[label] for model in models]
    results = [one.result for one in ones]
    return ComparedAttack(
        label=label,
        baseline=results[0].baseline,
        models=len(models),
        found=_found([(int(one.attacks[label].broken.sum()), int(one.broken.sum())) for one in models], replicates),
        alone=sum(_alone(label, model) for model in models),
        optimality=_optimality(label, models),
        forward_per_sample=_mean_of([one.forward_per_sample for one in results]),
        backward_per_sample=_mean_of([one.backward_per_sample for one in results]),
        wall_seconds=math.fsum(one.wall_seconds for one in results),
        verdict=max((verdict for one in ones for verdict in one.verdicts), key=VERDICTS.index, default=None),
        cell_ids=tuple(cell for one in results for cell in one.cell_ids),
    )


def _found(broken: Sequence[tuple[int, int]], replicates: NDArray[np.float64]) -> Estimate:
    """broken: for each model how many samples this attack broke, and how many any attack."""
    shares = [own / total for own, total in broken if total]
    if not shares:
        return Estimate(math.nan, math.nan, math.nan)
    estimate = percentile_interval(math.fsum(shares) / len(shares), replicates)
    if estimate.value in (0.0, 1.0):  # no resample shows what no sample has
        own, total = (sum(numbers) for numbers in zip(*broken, strict=True))
        return wider(estimate, clopper_pearson(own, total))
    return estimate


def _alone(label: str, model: _Model) -> int:
    left = model.attacks[label].broken
    for name, one in model.attacks.items():
        left = left & ~one.broken if name != label else left
    return int(left.sum())


def _optimality(label: str, models: Sequence[_Model]) -> float | None:
    if not all(model.attacks[label].minimum_norm for model in models):
        return None
    return _mean_of([_local_optimality(label, model) for model in models])


def _local_optimality(label: str, model: _Model) -> float | None:
    """How much of the area that all attacks together take from the curve of robust accuracy over budgets one takes.

    AttackBench, with the area under the step function itself: up to the largest budget that all of them together need
    for a sample. None where they broke none, or all at one budget.
    """
    best = np.minimum.reduce([one.budgets for one in model.attacks.values()])[model.right]
    best = best[np.isfinite(best)]
    largest = float(best.max(initial=0.0))
    own = np.minimum(model.attacks[label].budgets[model.right], largest)
    taken = float((largest - best).sum())
    return float((largest - own).sum()) / taken if taken > 0 else None


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _ranked(
    rows: Sequence[ComparedAttack],
    replicates: Mapping[str, NDArray[np.float64]],
    models: int,
    samples: int,
    alpha: float,
) -> tuple[ComparedAttack, ...]:
    """By what they found, the quickest of equals first; ranks as those of models, by the paired bootstrap."""
    contest = [row for row in rows if row.models == models and not math.isnan(row.found.value)]
    values = [row.found.value for row in contest]
    p_values = paired_bootstrap([replicates[row.label] for row in contest], values, samples)
    places = dict(zip((row.label for row in contest), tied_ranks(values, p_values, alpha), strict=True))
    counts = Counter(places.values())
    ranked = [
        replace(row, rank=places[row.label], tied=counts[places[row.label]] > 1) if row.label in places else row
        for row in rows
    ]
    return tuple(sorted(ranked, key=_order))


def _order(row: ComparedAttack) -> tuple[bool, float, float, str]:
    found = -row.found.value if not math.isnan(row.found.value) else math.inf
    return (row.rank is None, found, (row.forward_per_sample or 0.0) + (row.backward_per_sample or 0.0), row.label)
