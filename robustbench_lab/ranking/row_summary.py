"""What follows from the cells of one leaderboard row alone, whatever else is in its table: the worst case over attacks.

It takes all outcomes to make one, so databases keep them (see `kept_rows.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.comparable_cells import RowSubject, subject_of
from robustbench_lab.contracts import Access, Estimate, Task
from robustbench_lab.records import CellRecord, Finding, Outcomes, ResolvedComponent, Severity, Status, Verdict

VERDICTS = (Verdict.RELIABLE, Verdict.SUSPECT, Verdict.FAILED)
"""From best to worst."""

VERSION_DIGITS = 6
"""Of an attack's identity, behind its label."""

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


@dataclass(frozen=True)
class NamedMetric:
    """A metric as the catalog names it."""

    name: str
    function: Callable[[Outcomes], Estimate]
    higher_is_better: bool = True
    fraction: bool = True
    """Whether it is a share of 1, shown in percent."""
    main: bool = False
    """Whether tables of its task are sorted by it."""
    clean: str | None = None
    """The metric that says the same of clean inputs."""
    brief: bool = True
    """Whether it stands in a terminal's tables."""
    objectives: tuple[str, ...] = ()
    """Objectives, by name, whose tables in a terminal have it in any case."""


class AttackTraits(NamedTuple):
    """What the cross-attack diagnostics need to know of an attack."""

    baseline: bool
    access: Access

    @property
    def white_box(self) -> bool:
        return self.access is Access.GRADIENTS and not self.baseline


@dataclass(frozen=True)
class AttackResult:
    """What one attack found: the worst case per sample over its seeds."""

    label: str
    metrics: Mapping[str, Estimate]
    baseline: bool
    forward_per_sample: float | None
    backward_per_sample: float | None
    wall_seconds: float
    seeds: tuple[int, ...]
    cell_ids: tuple[str, ...]


@dataclass(frozen=True)
class AbsentAttack:
    """An attack that the row lacks: `failed`, `skipped` or `not run`, and why."""

    label: str
    status: str
    reason: str


class AttackName(NamedTuple):
    """An attack that a row has a cell of."""

    name: str
    label: str
    done: bool
    """Whether one of its cells is `ok`."""
    baseline: bool


@dataclass(frozen=True)
class RowSummary:
    """One defended model, without its place in the table."""

    subject: RowSubject
    metrics: Mapping[str, Estimate]
    """Of the worst case per sample over all attacks; empty where no cell is `ok`."""
    robust: NDArray[np.bool_] | None = field(repr=False, compare=False)
    """Bool `[N]`, in the worst case; None where no cell is `ok`."""
    replicates: NDArray[np.float64] | None = field(repr=False, compare=False)
    """The main metric on resampled samples, `[R]`, where the task compares rows by it (`Task.replicates`)."""
    outcomes: Outcomes | None = field(repr=False, compare=False)
    """The worst case per sample; None in a summary that was kept."""
    tried: tuple[AttackName, ...]
    """Each attack once, as it was last."""
    traits: Mapping[str, AttackTraits | None]
    """Of these attacks, by name, as they were when the summary was made; None: the attack was not installed."""
    attacks: Sequence[AttackResult]
    """Of each that is done."""
    lost: tuple[AbsentAttack, ...]
    """Failed and skipped ones."""
    forward_per_sample: float | None
    backward_per_sample: float | None
    wall_seconds: float
    verdict: Verdict | None
    findings: tuple[Finding, ...]
    cell_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    minimum_norm: bool

    @property
    def baselines_only(self) -> bool:
        """Whether there are results, and all of sanity baselines."""
        return self.any_done and all(one.baseline for one in self.attacks)

    @property
    def any_done(self) -> bool:
        """Whether there is a result."""
        return bool(self.attacks)


@dataclass(frozen=True)
class RowRules:
    """What a row is summarised by."""

    task: Task
    metrics: Sequence[NamedMetric]
    traits: Mapping[str, tuple[bool, Access]]
    shared: Collection[str] = ()
    """Names of the threat models in which one change counts for all samples."""

    def traits_of(self, record: CellRecord) -> AttackTraits | None:
        """None where the attack is not installed here."""
        return known_traits(self.traits, record.cell.attack.name)

    def worst_case(self, done: Sequence[CellRecord]) -> Outcomes:
        """The worst outcome of each sample in some finished cells of one row; of shared changes the worst for all."""
        outcomes = [outcomes_of(one) for one in done]
        if len(outcomes) == 1:
            return outcomes[0]
        if done[0].cell.threat_model.name in self.shared:
            return max(outcomes, key=_total_harm)
        return self.task.worst_case(outcomes)

    def is_baseline(self, record: CellRecord) -> bool:
        traits = self.traits_of(record)
        return traits is not None and traits.baseline


def _total_harm(outcomes: Outcomes) -> tuple[float, int]:
    """Damage, where the task measures any, then broken samples."""
    damage = outcomes.columns.get("damage", np.zeros(1))
    return float(damage.sum(dtype=np.float64)), int((~outcomes.robust).sum())


def known_traits(traits: Mapping[str, tuple[bool, Access]], attack: str) -> AttackTraits | None:
    """None where it is not installed here. `foolbox:LinfPGD` may be known by its family, `foolbox:`."""
    known = traits.get(attack) or traits.get(f"{attack.partition(':')[0]}:")
    return None if known is None else AttackTraits(*known)


def summarise(records: Sequence[CellRecord], rules: RowRules) -> RowSummary:
    """The summary of one defended model from all its cells in a table."""
    cell_ids = tuple(one.cell.cell_id for one in records)
    seeds = tuple(sorted({one.cell.seed for one in records}))
    newest, older = _newest_versions(records)
    records = _in_order(newest, rules)
    done = [*(one for one in records if one.status is Status.OK), *_in_order(older, rules)]
    telling = _most_reliable([one for one in done if not rules.is_baseline(one)] or done)
    worst = rules.worst_case(done) if done else None
    cross = _cross_attack_findings(done, rules)
    return RowSummary(
        subject=subject_of(records[0].cell),
        metrics={} if worst is None else _metrics(done, worst, rules),
        robust=None if worst is None else worst.robust,
        replicates=None if worst is None else rules.task.replicates(worst),
        outcomes=worst,
        tried=_attack_names(records, rules),
        traits={one.cell.attack.name: rules.traits_of(one) for one in records},
        attacks=_attack_results(done, rules),
        lost=_lost_attacks(records, done),
        forward_per_sample=_total([one.forward_per_sample for one in done]),
        backward_per_sample=_total([one.backward_per_sample for one in done]),
        wall_seconds=math.fsum(one.wall_seconds for one in done),
        verdict=_worst_verdict([one.verdict for one in telling] + [Verdict.SUSPECT] * len(cross)),
        findings=(*cross, *_cell_findings(telling)),
        cell_ids=cell_ids,
        seeds=seeds,
        minimum_norm=any(one.minimum_norm for one in done),
    )


def _in_order(records: Sequence[CellRecord], rules: RowRules) -> list[CellRecord]:
    """The same whenever which cell was done: attacks by name, baselines last."""
    return sorted(records, key=lambda one: (rules.is_baseline(one), one.cell.attack.label, one.cell.seed))


def _newest_versions(records: Sequence[CellRecord]) -> tuple[list[CellRecord], list[CellRecord]]:
    """The cells of each attack as it was last, and what it found before it was changed, under `pgd #1a2b3c`.

    An input that breaks the model counts whoever has found it; but it says nothing of the attack as it is now.
    """
    last = {one.cell.attack.label: one.cell.attack.identity for one in records}
    newest = [one for one in records if one.cell.attack.identity == last[one.cell.attack.label]]
    older = [one for one in records if one.cell.attack.identity != last[one.cell.attack.label]]
    return newest, [_with_version(one) for one in older if one.status is Status.OK]


def _with_version(record: CellRecord) -> CellRecord:
    named = replace(record.cell.attack, label=version_name(record.cell.attack))
    return replace(record, cell=replace(record.cell, attack=named))


def version_name(attack: ResolvedComponent) -> str:
    """What an attack is called that has others of its name beside it: `pgd #1a2b3c`."""
    return f"{attack.label} #{attack.identity[:VERSION_DIGITS]}"


def group_by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by their key, both in the order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _attack_names(records: Sequence[CellRecord], rules: RowRules) -> tuple[AttackName, ...]:
    grouped = group_by(records, lambda one: (one.cell.attack.name, one.cell.attack.label))
    return tuple(
        AttackName(*names, any(one.status is Status.OK for one in ones), rules.is_baseline(ones[0]))
        for names, ones in grouped.items()
    )


def _lost_attacks(records: Sequence[CellRecord], done: Sequence[CellRecord]) -> tuple[AbsentAttack, ...]:
    have = {(one.cell.attack.label, one.cell.seed) for one in done}
    lost = [one for one in records if (one.cell.attack.label, one.cell.seed) not in have]
    gaps = [AbsentAttack(one.cell.attack.label, one.status.value, one.reason or "no reason stored") for one in lost]
    return tuple(dict.fromkeys(gaps))


def _most_reliable(done: Sequence[CellRecord]) -> list[CellRecord]:
    """The cells of the best verdict: beside one attack that could work, others that could not take nothing away.

    Baselines are left out before, since they say nothing of how well an attack could work.
    """
    best = min((one.verdict for one in done if one.verdict), key=VERDICTS.index, default=None)
    return [one for one in done if one.verdict == best]


def outcomes_of(record: CellRecord) -> Outcomes:
    """The outcomes of a finished cell. Raises ValueError where the record was loaded without them."""
    if record.outcomes is None:
        raise ValueError(f"cell {record.cell.cell_id} was handed over without its per-sample outcomes")
    return record.outcomes


def _attack_results(done: Sequence[CellRecord], rules: RowRules) -> tuple[AttackResult, ...]:
    results = []
    for label, ones in group_by(done, lambda one: one.cell.attack.label).items():
        worst = rules.worst_case(ones)
        results.append(
            AttackResult(
                label=label,
                metrics=_metrics(ones, worst, rules),
                baseline=rules.is_baseline(ones[0]),
                forward_per_sample=_total([one.forward_per_sample for one in ones]),
                backward_per_sample=_total([one.backward_per_sample for one in ones]),
                wall_seconds=math.fsum(one.wall_seconds for one in ones),
                seeds=tuple(sorted({one.cell.seed for one in ones})),
                cell_ids=tuple(one.cell.cell_id for one in ones),
            )
        )
    return tuple(results)


def _metrics(done: Sequence[CellRecord], worst: Outcomes, rules: RowRules) -> Mapping[str, Estimate]:
    stored = done[0].metrics
    if len(done) == 1 and all(metric.name in stored for metric in rules.metrics):
        return {metric.name: stored[metric.name] for metric in rules.metrics}
    return {metric.name: metric.function(worst) for metric in rules.metrics}


def _cross_attack_findings(done: Sequence[CellRecord], rules: RowRules) -> tuple[Finding, ...]:
    """Samples that attacks without gradients broke and no gradient attack did.

    One of the tests for masked gradients of Athalye et al. 2018 and Carlini et al. 2019 ("On Evaluating Adversarial
    Robustness", section 5).
    """
    robust: dict[str, list[NDArray[np.bool_]]] = {"white": [], "baseline": [], "black": [], "unknown": []}
    for one in done:
        traits = rules.traits_of(one)
        robust[_kind_of(traits)].append(outcomes_of(one).robust)
    white, unknown = robust["white"], robust["unknown"]
    others = [*robust["baseline"], *robust["black"]]
    counts = {
        "noise-beats-gradient": _broken_beyond(white, robust["baseline"]),
        "black-box-beats-gradient": _broken_beyond(white, robust["black"]),
        "unknown-attack": _broken_beyond(white, unknown) if white else _broken_beyond(unknown, others),
    }
    return tuple(finding(code, Severity.SUSPECT, BEYOND[code], count) for code, count in counts.items() if count)


BEYOND = {
    "noise-beats-gradient": "a baseline broke what no gradient attack broke",
    "black-box-beats-gradient": "an attack without gradients broke what no gradient attack broke",
    "unknown-attack": "an attack broke what others did not, and whether one of them sees gradients is not known here: "
    "load its plugin (--plugin)",
}


def _kind_of(traits: AttackTraits | None) -> str:
    if traits is None:
        return "unknown"
    return "baseline" if traits.baseline else "white" if traits.white_box else "black"


def _broken_beyond(held: Sequence[NDArray[np.bool_]], others: Sequence[NDArray[np.bool_]]) -> int:
    """Samples that none of the first broke and one of the others did; 0 where there are none of either."""
    if not held or not others:
        return 0
    return int((np.logical_and.reduce(held) & ~np.logical_and.reduce(others)).sum())


def _cell_findings(telling: Sequence[CellRecord]) -> tuple[Finding, ...]:
    """Doubts about single cells, with the attacks they concern unless that is all of them."""
    everyone = {one.cell.attack.label for one in telling}
    concerned: dict[Finding, dict[str, None]] = {}
    for record in telling:
        for one in record.findings:
            if one.severity is not Severity.INFO:
                concerned.setdefault(one, {})[record.cell.attack.label] = None
    return tuple(
        one if len(labels) == len(everyone) else replace(one, message=f"{', '.join(labels)}: {one.message}")
        for one, labels in concerned.items()
    )


def _worst_verdict(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    return max((one for one in verdicts if one is not None), key=VERDICTS.index, default=None)


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None


def finding(code: str, severity: Severity, message: str, count: int | None = None) -> Finding:
    """count: of the samples it concerns."""
    return Finding(code, severity, message, None if count is None else float(count))
