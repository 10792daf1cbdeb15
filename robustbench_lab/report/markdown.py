"""The leaderboard as GitHub-flavoured Markdown: one heading, table and list of flags for each group of rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardTable
from robustbench_lab.report import formatting as write


def render(leaderboard: Leaderboard) -> str:
    """A whole document; names from plugins and users are escaped."""
    definition = leaderboard.definition
    parts = [f"# {plain(definition.title)}"]
    if definition.description:
        parts.append(plain(definition.description))
    for table in leaderboard.tables:
        parts += [f"## {plain(write.heading(table))}", f"{write.samples_text(table)}.", "\n".join(_table(table))]
        if notes := list(_notes(table)):
            parts.append("\n".join(notes))
    parts.append(write.EXPLANATION if leaderboard.tables else "No results.")
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text in which no character means anything to Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", write.printable(text))


def code(text: str) -> str:
    """A code span that may stand in a table cell."""
    shown = write.printable(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _table(table: LeaderboardTable) -> Iterator[str]:
    measured = write.measured_metrics(table)
    metrics = [write.metric_title(metric.name) for metric in measured]
    metrics += [write.published_title(metric) for metric in table.published]
    yield _line(["#", "Model", *metrics, "Attacks", "Passes", "Time", "Verdict", "Flags"])
    yield _line(["--:", ":--", *["--:" for _ in metrics], ":--", "--:", "--:", ":--", ":--"])
    for row in table.rows:
        yield _line(
            [
                row.rank_label,
                code(row.name),
                *(write.estimate_text(row.metrics.get(metric.name), fraction=metric.fraction) for metric in measured),
                *(write.published_text(row, metric) for metric in table.published),
                ", ".join(code(label) for label in write.attack_labels(row)) or write.ABSENT,
                write.passes_text(row),
                write.seconds_text(row),
                write.ABSENT if row.verdict is None else row.verdict.value,
                ", ".join(plain(flag) for flag in row.flags),
            ]
        )


def _notes(table: LeaderboardTable) -> Iterator[str]:
    for note in write.notes(table):
        names = ", ".join(code(row.name) for row in note.rows)
        for finding in note.findings:
            yield f"- {names}: **{plain(finding.code)}**, {plain(finding.line)}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
