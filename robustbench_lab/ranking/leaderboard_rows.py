"""One row of a leaderboard: everything that was measured about one defended model on the same samples and budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Estimate, Published
from robustbench_lab.ranking.leaderboard_definition import is_called
from robustbench_lab.ranking.row_summary import AbsentAttack, AttackResult, RowSummary, finding
from robustbench_lab.records import Finding, Outcomes, Severity, Verdict

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
    "unknown-attack": "An attack broke what others did not, and the plugin of one of them is not loaded: whether that "
    "is a sign of masked gradients cannot be told.",
    "worse-than-published": "The published figure is better than the interval: it is too good, or weights, data or "
    "preprocessing are others.",
    "better-than-published": "The published figure is worse than the interval: the attacks were weaker than the "
    "published ones, or weights, data or preprocessing are others.",
    "clean-unlike-published": "The published figure without attack lies outside the interval: weights, data or "
    "preprocessing are others.",
}
"""What the leaderboard's own flags mean. Further flags are the codes of findings about single cells."""


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
    """The worst case per sample; None as well where the row was made from what the database has kept of it."""
    robust: NDArray[np.bool_] | None = field(repr=False, compare=False)
    """Bool `[N]`: the samples that no attack broke."""
    replicates: NDArray[np.float64] | None = field(repr=False, compare=False)
    """The main metric on resampled samples, `[R]`, where rows of the task are compared by it."""
    attacks: Sequence[AttackResult]
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
    published: Published | None = None
    """What is stated about the model elsewhere, for the same data and budget."""

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


def flag_codes(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The codes of the findings that cast doubt on a number, each once, in their order."""
    return tuple(dict.fromkeys(one.code for one in findings if one.severity is not Severity.INFO))


def build_row(summary: RowSummary, required: Sequence[str], tried: frozenset[str]) -> LeaderboardRow:
    """The row of one defended model.

    required: attacks without whose results a row has no rank, by name or label.
    tried: labels of the attacks, baselines aside, that any row of the table has a result of.
    """
    absent = _absent_attacks(summary, required, tried)
    gaps = _gap_findings(summary, absent, required)
    return LeaderboardRow(
        model=summary.subject.model.label,
        defense=summary.subject.defense.label,
        variant="",
        metrics=summary.metrics,
        outcomes=summary.outcomes,
        robust=summary.robust,
        replicates=summary.replicates,
        attacks=summary.attacks,
        absent=absent,
        forward_per_sample=summary.forward_per_sample,
        backward_per_sample=summary.backward_per_sample,
        wall_seconds=summary.wall_seconds,
        verdict=summary.verdict,
        findings=(*gaps, *summary.findings),
        rankable=summary.any_done and not any(one.severity is Severity.FATAL for one in gaps),
        cell_ids=summary.cell_ids,
        seeds=summary.seeds,
        minimum_norm=summary.minimum_norm,
    )


def _absent_attacks(summary: RowSummary, required: Sequence[str], tried: frozenset[str]) -> tuple[AbsentAttack, ...]:
    seen = {one.label for one in summary.tried}
    unmet = [name for name in required if not any(is_called(one, name) for one in summary.tried)]
    absent = [*summary.lost]
    absent += [AbsentAttack(name, "not run", "required by this leaderboard") for name in unmet]
    others = sorted(tried - seen - set(unmet))
    absent += [AbsentAttack(label, "not run", "other rows of the table have it") for label in others]
    return tuple(dict.fromkeys(absent))


def _gap_findings(summary: RowSummary, absent: Sequence[AbsentAttack], required: Sequence[str]) -> tuple[Finding, ...]:
    """What the row lacks; a fatal one costs it its rank."""
    found = []
    if summary.verdict is Verdict.FAILED:
        found.append(finding("attack-unable", Severity.FATAL, "an attack could not work on this model"))
    if summary.baselines_only:
        found.append(finding("baseline-only", Severity.FATAL, "only sanity baselines were run"))
    unmet = [name for name in required if not any(one.done and is_called(one, name) for one in summary.tried)]
    if unmet:
        found.append(finding("required-attack", Severity.FATAL, f"no result of {', '.join(unmet)}"))
    for status, code in (("failed", "attack-failed"), ("skipped", "attack-skipped"), ("not run", "fewer-attacks")):
        lacking = [one for one in absent if one.status == status and one.label not in unmet]
        if lacking:
            text = "; ".join(f"{one.label}: {one.reason}" for one in lacking)
            found.append(finding(code, Severity.SUSPECT, text))
    return tuple(found)
