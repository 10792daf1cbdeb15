"""The leaderboard as LaTeX tables, for documents that use the package booktabs."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_lab.contracts import Estimate
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardRow, LeaderboardTable, NamedMetric
from robustbench_lab.report import formatting as write

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedblright{}",
        "`": r"\textasciigrave{}",
        "[": "{[}",
        "]": "{]}",
        "—": "---",
        "·": r"\textperiodcentered{}",
        "…": r"\dots{}",
    }
)


def render(leaderboard: Leaderboard) -> str:
    """One `table` environment for each group of rows, with the metrics that a terminal has."""
    tables = ["\n".join(_table(table)) for table in leaderboard.tables]
    return "\n\n".join(["% needs \\usepackage{booktabs}", *tables]) + "\n"


def escape(text: str) -> str:
    """Text in which no character means anything to LaTeX."""
    return write.printable(text).translate(_ESCAPES)


def _table(table: LeaderboardTable) -> Iterator[str]:
    metrics = [write.metric_title(metric.name) for metric in write.brief_metrics(table)]
    metrics += [write.published_title(metric) for metric in table.published]
    titles = ["", "Model", *metrics, "Attacks", "Passes"]
    yield "\\begin{table}"
    yield "  \\centering"
    caption = f"{write.heading(table)}, {write.samples_text(table)}. {write.EXPLANATION}"
    yield f"  \\caption{{{escape(caption)}}}"
    yield f"  \\begin{{tabular}}{{rl{'r' * len(metrics)}lr}}"
    yield "    \\toprule"
    yield f"    {' & '.join(escape(title) for title in titles)} \\\\"
    yield "    \\midrule"
    notes = write.note_numbers(table)
    for row in table.rows:
        yield f"    {' & '.join(_cells(row, table, notes.get(row.cell_ids)))} \\\\"
    yield "    \\bottomrule"
    yield "  \\end{tabular}"
    yield from _notes(table)
    yield "\\end{table}"


def _cells(row: LeaderboardRow, table: LeaderboardTable, note: int | None) -> Iterator[str]:
    yield escape(row.rank_label)
    yield escape(row.name) + ("" if note is None else f"\\textsuperscript{{{note}}}")
    for metric in write.brief_metrics(table):
        yield _estimate(row.metrics.get(metric.name), metric, bold=row.rank == 1 and metric == table.main_metric)
    yield from (escape(write.published_text(row, metric)) for metric in table.published)
    yield escape(", ".join(write.attack_labels(row)) or write.ABSENT)
    yield escape(write.passes_text(row))


def _estimate(estimate: Estimate | None, metric: NamedMetric, *, bold: bool) -> str:
    value = escape(write.value_text(estimate, fraction=metric.fraction))
    if estimate is None:
        return value
    shown = f"\\textbf{{{value}}}" if bold else value
    return f"{shown} {{\\scriptsize {escape(write.interval_text(estimate, fraction=metric.fraction))}}}"


def _notes(table: LeaderboardTable) -> Iterator[str]:
    for note in write.notes(table):
        for finding in note.findings:
            text = escape(f"{finding.code}: {finding.line}")
            yield f"  \\par{{\\footnotesize\\textsuperscript{{{note.number}}}{text}}}"
