"""One row of a leaderboard: everything that was measured about one defended model on the same samples and budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np

from robustbench_lab.contracts import Access, Estimate, Task
from robustbench_lab.leaderboard_definition import is_called
from robustbench_lab.records import CellRecord, Finding, Outcomes, Severity, Status, Verdict

VERDICTS = (Verdict.RELIABLE, Verdict.SUSPECT, Verdict.FAILED)
"""From best to worst."""

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")

FLAG_MEANINGS: Mapping[str, str] = {
    "attack-unable": "The diagnostics found that an attack could not work here, so the row has no rank.",
    "baseline-only": "Only sanity baselines such as random noise were run: they prove nothing, so the row has no rank.",
    "required-attack": "A required attack has no result, so the row has no rank.",
    "attack-failed": "An attack ended with an error; the row rests on the others and may look better than it is.",
    "attack-skipped": "An attack could not be run on this model; the row rests on the others.",
    "fewer-attacks": "Other rows of the table were attacked by more; this one may look better than it is.",
    "noise-beats-gradient": "Random noise broke samples that no gradient attack broke: a sign of masked gradients.",
    "black-box-beats-gradient": "An attack without gradients broke samples that no gradient attack broke: "
    "a sign of masked gradients, or of a gradient attack that is too weak.",
}
"""What the leaderboard's own flags mean. Further flags are the codes of findings about single cells."""


@dataclass(frozen=True)
class NamedMetric:
    """A metric as the catalog names it."""

    name: str
    function: Callable[[Outcomes], Estimate]
    higher_is_better: bool = True
    fraction: bool = True
    """Whether it is a share of 1, shown in percent."""


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


@dataclass(frozen=True)
class LeaderboardRow:
    """One defended model."""

    model: str
    defense: str
    variant: str
    """Start of the identity, where two rows of the table have the same labels (other weights, another version)."""
    metrics: Mapping[str, Estimate]
    """Of the worst case per sample over all attacks; empty where no cell is `ok`."""
    outcomes: Outcomes | None = field(repr=False, compare=False)
    """The worst case per sample."""
    attacks: tuple[AttackResult, ...]
    absent: tuple[AbsentAttack, ...]
    forward_per_sample: float | None
    """Summed over attacks and seeds, like the two below: what the evidence has cost."""
    backward_per_sample: float | None
    wall_seconds: float
    verdict: Verdict | None
    """The best of its attacks' verdicts; at least `suspect` where an attack without gradients beat those with."""
    findings: tuple[Finding, ...]
    rankable: bool
    cell_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    rank: int | None = None
    tied: bool = False
    """Whether another row has the same rank."""
    minimum_norm: bool = False
    """Whether one of its attacks looked for the nearest input, so that its distances tell of every budget."""

    @property
    def name(self) -> str:
        """Model, defense where there is one, and the variant where the two are not unique."""
        defended = self.model if self.defense == "none" else f"{self.model} + {self.defense}"
        return f"{defended} #{self.variant}" if self.variant else defended

    @property
    def rank_label(self) -> str:
        """`1`, `1=` where it is shared, `—` where there is none."""
        return "—" if self.rank is None else f"{self.rank}{'=' if self.tied else ''}"

    @property
    def flags(self) -> tuple[str, ...]:
        return flag_codes(self.findings)


@dataclass(frozen=True)
class RowRules:
    """What the rows of a table are built by."""

    task: Task
    metrics: Sequence[NamedMetric]
    traits: Mapping[str, tuple[bool, Access]]
    required: Sequence[str]
    tried: frozenset[str]
    """Labels of the attacks, baselines aside, that any row of the table has a result of."""

    def traits_of(self, record: CellRecord) -> AttackTraits | None:
        """None where the attack is not installed here. `foolbox:LinfPGD` may be known by its family, `foolbox:`."""
        name = record.cell.attack.name
        known = self.traits.get(name) or self.traits.get(f"{name.partition(':')[0]}:")
        return None if known is None else AttackTraits(*known)

    def worst_case(self, done: Sequence[CellRecord]) -> Outcomes:
        """The worst outcome of each sample in some finished cells."""
        outcomes = [outcomes_of(one) for one in done]
        return outcomes[0] if len(outcomes) == 1 else self.task.worst_case(outcomes)

    def is_baseline(self, record: CellRecord) -> bool:
        traits = self.traits_of(record)
        return traits is not None and traits.baseline


def flag_codes(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The codes of the findings that cast doubt on a number, each once, in their order."""
    return tuple(dict.fromkeys(one.code for one in findings if one.severity is not Severity.INFO))


def build_row(records: Sequence[CellRecord], rules: RowRules) -> LeaderboardRow:
    """The row of one defended model from all its cells in a table."""
    done = [one for one in records if one.status is Status.OK]
    telling = _most_reliable([one for one in done if not rules.is_baseline(one)] or done)
    absent = _absent_attacks(records, done, rules)
    worst = rules.worst_case(done) if done else None
    cross = _cross_attack_findings(done, rules)
    verdict = _worst_verdict([one.verdict for one in telling] + [Verdict.SUSPECT] * len(cross))
    gaps = _gap_findings(done, absent, verdict, rules)
    cell = records[0].cell
    return LeaderboardRow(
        model=cell.model.label,
        defense=cell.defense.label,
        variant="",
        metrics={} if worst is None else _metrics(done, worst, rules),
        outcomes=worst,
        attacks=_attack_results(done, rules),
        absent=absent,
        forward_per_sample=_total([one.forward_per_sample for one in done]),
        backward_per_sample=_total([one.backward_per_sample for one in done]),
        wall_seconds=math.fsum(one.wall_seconds for one in done),
        verdict=verdict,
        findings=(*gaps, *cross, *_cell_findings(telling)),
        rankable=bool(done) and not any(one.severity is Severity.FATAL for one in gaps),
        cell_ids=tuple(one.cell.cell_id for one in records),
        seeds=tuple(sorted({one.cell.seed for one in records})),
        minimum_norm=any(one.minimum_norm for one in done),
    )


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


def group_by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by their key, both in the order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


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


def _absent_attacks(
    records: Sequence[CellRecord], done: Sequence[CellRecord], rules: RowRules
) -> tuple[AbsentAttack, ...]:
    have = {(one.cell.attack.label, one.cell.seed) for one in done}
    lost = [one for one in records if (one.cell.attack.label, one.cell.seed) not in have]
    absent = [AbsentAttack(one.cell.attack.label, one.status.value, one.reason or "no reason stored") for one in lost]
    seen = {one.cell.attack.label for one in records}
    unmet = [name for name in rules.required if not any(is_called(one.cell.attack, name) for one in records)]
    absent += [AbsentAttack(name, "not run", "required by this leaderboard") for name in unmet]
    others = sorted(rules.tried - seen - set(unmet))
    absent += [AbsentAttack(label, "not run", "other rows of the table have it") for label in others]
    return tuple(dict.fromkeys(absent))


def _gap_findings(
    done: Sequence[CellRecord], absent: Sequence[AbsentAttack], verdict: Verdict | None, rules: RowRules
) -> tuple[Finding, ...]:
    """What the row lacks; a fatal one costs it its rank."""
    found = []
    if verdict is Verdict.FAILED:
        found.append(_finding("attack-unable", Severity.FATAL, "an attack could not work on this model"))
    if done and all(rules.is_baseline(one) for one in done):
        found.append(_finding("baseline-only", Severity.FATAL, "only sanity baselines were run"))
    unmet = [name for name in rules.required if not any(is_called(one.cell.attack, name) for one in done)]
    if unmet:
        found.append(_finding("required-attack", Severity.FATAL, f"no result of {', '.join(unmet)}"))
    for status, code in (("failed", "attack-failed"), ("skipped", "attack-skipped"), ("not run", "fewer-attacks")):
        lacking = [one for one in absent if one.status == status and one.label not in unmet]
        if lacking:
            text = "; ".join(f"{one.label}: {one.reason}" for one in lacking)
            found.append(_finding(code, Severity.SUSPECT, text))
    return tuple(found)


def _cross_attack_findings(done: Sequence[CellRecord], rules: RowRules) -> tuple[Finding, ...]:
    """Samples that attacks without gradients broke and no gradient attack did.

    One of the tests for masked gradients of Athalye et al. 2018 and Carlini et al. 2019 ("On Evaluating Adversarial
    Robustness", section 5).
    """
    white = [outcomes_of(one).robust for one in done if (traits := rules.traits_of(one)) and traits.white_box]
    if not white:
        return ()
    held = np.logical_and.reduce(white)
    found = []
    for code, baseline, kind in (
        ("noise-beats-gradient", True, "a baseline"),
        ("black-box-beats-gradient", False, "an attack without gradients"),
    ):
        others = [
            outcomes_of(one).robust
            for one in done
            if (traits := rules.traits_of(one)) and not traits.white_box and traits.baseline is baseline
        ]
        count = int((held & ~np.logical_and.reduce(others)).sum()) if others else 0
        if count:
            text = f"{kind} broke what no gradient attack broke"
            found.append(_finding(code, Severity.SUSPECT, text, count))
    return tuple(found)


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


def _finding(code: str, severity: Severity, message: str, count: int | None = None) -> Finding:
    return Finding(code, severity, message, None if count is None else float(count))
