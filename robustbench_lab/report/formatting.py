"""How numbers and names are written, the same in every text format."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from robustbench_lab.contracts import Estimate
from robustbench_lab.printable_text import printable as printable
from robustbench_lab.ranking.leaderboard import LeaderboardRow, LeaderboardTable, NamedMetric
from robustbench_lab.records import Finding

ABSENT = "—"
EXPLANATION = (
    "95% intervals. Each sample counts with the worst that the row's attacks did to it. "
    "Passes: forward/backward per sample. Rows with the same rank (1=) cannot be told apart by a paired test."
)


def count_text(count: int, noun: str) -> str:
    """`1 cell`, `1,200 cells`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shorten(text: str, width: int) -> str:
    """At most `width` characters, cut in the middle: the ends of labels tell them apart."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def metric_title(name: str) -> str:
    """`robust_accuracy` to `Robust accuracy`, `robust_map50` to `Robust mAP50`, `clean_mase` to `Clean MASE`."""
    title = re.sub(r"\bmap(\d*)\b", r"mAP\1", name.replace("_", " ").capitalize()).replace(" miou", " mIoU")
    title = re.sub(r"(?i)\b(mase|mae|r?mse|crps|wql|nms)\b", lambda found: found[0].upper(), title)
    return title.replace("smape", "sMAPE")


def metric_words(name: str) -> str:
    """`robust mAP50`, `NMS candidates`: a title within a line."""
    title = metric_title(name)
    return title if title[:2].isupper() else f"{title[0].lower()}{title[1:]}"


def value_text(estimate: Estimate | None, *, fraction: bool) -> str:
    """`89.1%`, or four digits of what is no share."""
    if estimate is None or math.isnan(estimate.value):
        return ABSENT
    return f"{100 * estimate.value:.1f}%" if fraction else f"{estimate.value:.4g}"


def interval_text(estimate: Estimate, *, fraction: bool) -> str:
    """`[86.0, 91.7]`, in the unit of the value; nothing where there is none."""
    if math.isnan(estimate.value):
        return ""
    if fraction:
        return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    return f"[{estimate.low:.4g}, {estimate.high:.4g}]"


def published_title(metric: NamedMetric) -> str:
    """`Published robust accuracy`."""
    return f"Published {metric_words(metric.name)}"


def published_text(row: LeaderboardRow, metric: NamedMetric) -> str:
    """`59.5%`, without an interval: none is published."""
    value = None if row.published is None else row.published.metrics.get(metric.name)
    return ABSENT if value is None else value_text(Estimate(value, value, value), fraction=metric.fraction)


def estimate_text(estimate: Estimate | None, *, fraction: bool) -> str:
    """`89.1% [86.0, 91.7]`."""
    if estimate is None:
        return ABSENT
    return f"{value_text(estimate, fraction=fraction)} {interval_text(estimate, fraction=fraction)}".rstrip()


def eps_text(eps: float) -> str:
    """`8/255` for exactly that number, otherwise the shortest decimal; always exact."""
    steps = Fraction(round(eps * 255))
    if float(steps / 255) == eps and 0 < steps < 255 and len(repr(eps)) > len("0.25"):
        return f"{steps}/255"
    return f"{eps:g}" if float(f"{eps:g}") == eps else repr(eps)


def threat_model_text(label: str, eps: float) -> str:
    """`linf(eps=8/255)` for the label that holds the budget as a decimal."""
    return label.replace(f"eps={eps!r}", f"eps={eps_text(eps)}")


def budget_text(table: LeaderboardTable) -> str:
    """`linf 8/255`, or the threat model's label where there is more to it."""
    return f"{table.norm} {eps_text(table.eps)}" if table.has_plain_budget else printable(table.threat_model)


def heading(table: LeaderboardTable) -> str:
    """`digits · linf 8/255 · untargeted`; the adversary is named where it is not the usual one."""
    parts = [printable(table.dataset), budget_text(table), printable(table.objective)]
    if table.adversary != "adaptive":
        parts.append(f"{printable(table.adversary)} adversary")
    return " · ".join(parts)


def brief_metrics(table: LeaderboardTable) -> list[NamedMetric]:
    """Those for tables of limited width: the one sorted by, what the objective is after, and then the others.

    The last ones go first where there is too little room: what the objective is after without attack is behind it.
    """
    objective, main = table.objective.partition("(")[0], table.main_metric
    shown = [one for one in measured_metrics(table) if one.brief or one == main or objective in one.objectives]
    clean = {one.clean for one in shown}

    def place(one: NamedMetric) -> tuple[bool, ...]:
        return one.name != main.clean, one != main, objective not in one.objectives, one.name in clean

    return sorted(shown, key=place)


def measured_metrics(table: LeaderboardTable) -> list[NamedMetric]:
    """Without those that no row can have: what a detector does not tell, such as a flood that it does not suppress."""
    with_results = [row for row in table.rows if row.metrics]
    return [one for one in table.metrics if one == table.main_metric or _has_values(one, with_results)]


def _has_values(metric: NamedMetric, rows: list[LeaderboardRow]) -> bool:
    values = [row.metrics.get(metric.name) for row in rows]
    return not rows or any(one is not None and not math.isnan(one.value) for one in values)


def samples_text(table: LeaderboardTable) -> str:
    """`1,000 samples (set 3f2a1c)`: two tables can be about different samples of the same dataset."""
    return f"{table.samples:,} samples (set {table.sample_set[:6]})"


def attack_labels(row: LeaderboardRow) -> tuple[str, ...]:
    """Of the attacks that the row has results of."""
    return tuple(printable(attack.label) for attack in row.attacks)


@dataclass(frozen=True)
class Note:
    """What stands below a table, once for all rows that it is about."""

    number: int
    findings: tuple[Finding, ...]
    rows: tuple[LeaderboardRow, ...]


def notes(table: LeaderboardTable) -> list[Note]:
    """What is behind the flags, numbered; rows of which the same is said share a note."""
    alike: dict[tuple[tuple[str, str], ...], list[LeaderboardRow]] = {}
    for row in table.rows:
        if row.flags:
            alike.setdefault(tuple((finding.code, finding.line) for finding in row.findings), []).append(row)
    return [Note(number, rows[0].findings, tuple(rows)) for number, rows in enumerate(alike.values(), start=1)]


def note_numbers(table: LeaderboardTable) -> dict[tuple[str, ...], int]:
    """The number of each flagged row's note, by the row's cell ids."""
    return {row.cell_ids: note.number for note in notes(table) for row in note.rows}


class HasPasses(Protocol):
    """Whatever was counted passes of."""

    @property
    def forward_per_sample(self) -> float | None: ...

    @property
    def backward_per_sample(self) -> float | None: ...


def passes_text(row: HasPasses) -> str:
    """`51/50`: forward/backward passes per sample."""
    if row.forward_per_sample is None and row.backward_per_sample is None:
        return ABSENT
    return f"{_count(row.forward_per_sample)}/{_count(row.backward_per_sample)}"


def seconds_text(row: LeaderboardRow) -> str:
    """Time summed over the row's cells."""
    return duration_text(row.wall_seconds) if row.attacks else ABSENT


def duration_text(seconds: float) -> str:
    """`0.4 s`, `75 s`, `12 min`, `3.4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def memory_text(size: int) -> str:
    """`512 MB`, `79.2 GB`: bytes in binary units, as GPU makers count them."""
    megabytes = size / 1024**2
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def _count(passes: float | None) -> str:
    if passes is None:
        return ABSENT
    return f"{passes:,.0f}" if passes >= 9.95 or passes == int(passes) else f"{passes:.1f}"
