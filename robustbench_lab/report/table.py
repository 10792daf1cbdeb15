"""The leaderboard in a terminal, and the same as plain text."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from robustbench_lab.contracts import Estimate
from robustbench_lab.leaderboard import Leaderboard, LeaderboardRow, LeaderboardTable, NamedMetric
from robustbench_lab.records import Verdict
from robustbench_lab.report import formatting as write

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

PLAIN_WIDTH = 100
BAR_WIDTH = 12
MODEL_WIDTH = 36
"""Longer names are cut in the middle; every other format has them whole."""
ATTACKS_WIDTH = 60
"""Of further attacks only the number is shown; every other format names them all."""
VERDICT_STYLES = {Verdict.RELIABLE: "green", Verdict.SUSPECT: "yellow", Verdict.FAILED: "red"}
NO_RESULTS = (
    "No results here. `rbl run --attack pgd` makes some; `rbl leaderboard` without filters shows all there are."
)


@dataclass(frozen=True)
class _Detail:
    """How much a table shows."""

    bar: bool
    intervals: bool
    """Of every metric; otherwise only of the one sorted by."""
    verdict: bool


_DETAILS = (
    _Detail(bar=True, intervals=True, verdict=True),
    _Detail(bar=False, intervals=True, verdict=True),
    _Detail(bar=False, intervals=False, verdict=True),
    _Detail(bar=False, intervals=False, verdict=False),
)
"""From most to least; the first that fits the terminal is shown."""


def render(leaderboard: Leaderboard) -> str:
    """Plain text without colour, 100 columns wide."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=PLAIN_WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(renderable(leaderboard))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def renderable(leaderboard: Leaderboard, most_rows: int = 0) -> RenderableType:
    """For a Rich console; shows as much detail as the console is wide enough for.

    most_rows: of each table; 0: all.
    """
    return _TerminalView(leaderboard, most_rows)


@dataclass(frozen=True)
class _TerminalView:
    leaderboard: Leaderboard
    most_rows: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        if not self.leaderboard.tables:
            yield Text(NO_RESULTS)
            return
        for full_table in self.leaderboard.tables:
            hidden = len(full_table.rows) - self.most_rows if self.most_rows else 0
            table = replace(full_table, rows=full_table.rows[: self.most_rows]) if hidden > 0 else full_table
            yield Text.assemble((write.heading(table), "bold"), (f"   {write.samples_text(table)}", "dim"))
            yield _fitting(table, console, options)
            if hidden > 0:
                yield Text(f"... and {hidden} more: `--rows 0` shows all", style="dim")
            if notes := list(_notes(table)):
                yield Text()
                yield from notes
            yield Text()
        yield Text(write.EXPLANATION, style="dim")


def _fitting(table: LeaderboardTable, console: Console, options: ConsoleOptions) -> Table:
    """With as much detail as there is room for."""
    from rich.measure import Measurement

    notes = write.note_numbers(table)
    unbounded = options.update(max_width=1000)
    for detail in _DETAILS:
        lines = [_Line(tuple(_cells(row, table, detail, notes.get(row.cell_ids))), row.rank) for row in table.rows]
        columns = range(len(lines[0].cells))
        widest = [max(lines, key=lambda line: line.cells[column].cell_len) for column in columns]
        if Measurement.get(console, unbounded, _view(table, detail, widest)).maximum <= options.max_width:
            break
    return _view(table, detail, lines)


def _shown(table: LeaderboardTable) -> list[NamedMetric]:
    """Brief metrics, and the one sorted by."""
    return [metric for metric in table.metrics if metric.brief or metric == table.main_metric]


class _Line(NamedTuple):
    cells: tuple[Text, ...]
    rank: int | None


def _view(table: LeaderboardTable, detail: _Detail, lines: Iterable[_Line]) -> Table:
    from rich import box
    from rich.table import Table

    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    view.add_column("#", justify="right", no_wrap=True)
    view.add_column("Model", overflow="fold")
    for metric in _shown(table):
        view.add_column(write.metric_title(metric.name).replace(" ", "\n"), justify="right", no_wrap=True)
        if detail.bar and metric == table.main_metric and metric.fraction:
            view.add_column(no_wrap=True)
    view.add_column("Attacks", overflow="fold")
    view.add_column("Passes", justify="right", no_wrap=True)
    view.add_column("Time", justify="right", no_wrap=True)
    if detail.verdict:
        view.add_column("Verdict", no_wrap=True)
    for line in lines:
        view.add_row(*line.cells, style="" if line.rank else "dim")
    return view


def _cells(row: LeaderboardRow, table: LeaderboardTable, detail: _Detail, note: int | None) -> Iterator[Text]:
    from rich.text import Text

    yield Text(f"{row.rank_label:<2}", style="bold" if row.rank == 1 else "")
    mark = "" if note is None else f" [{note}]"
    yield Text.assemble((write.shorten(write.printable(row.name), MODEL_WIDTH), "cyan"), (mark, "yellow"))
    for metric in _shown(table):
        estimate = row.metrics.get(metric.name)
        main = metric == table.main_metric
        yield _estimate(estimate, metric, main=main, interval=main or detail.intervals)
        if detail.bar and main and metric.fraction:
            yield _bar(estimate)
    yield Text(_attacks(row))
    yield Text(write.passes_text(row))
    yield Text(write.seconds_text(row))
    if detail.verdict:
        yield Text(write.ABSENT) if row.verdict is None else Text(row.verdict.value, VERDICT_STYLES[row.verdict])


def _attacks(row: LeaderboardRow) -> str:
    """As many as fit in ATTACKS_WIDTH; one at least."""
    labels = write.attack_labels(row)
    shown = len(labels)
    while shown > 1 and len(", ".join(labels[:shown])) > ATTACKS_WIDTH:
        shown -= 1
    more = [f"{len(labels) - shown} more"] if shown < len(labels) else []
    return ", ".join([*labels[:shown], *more]) or write.ABSENT


def _estimate(estimate: Estimate | None, metric: NamedMetric, *, main: bool, interval: bool) -> Text:
    from rich.text import Text

    text = Text(write.value_text(estimate, fraction=metric.fraction), style="bold" if main else "")
    if estimate is not None and interval:
        text.append(f" {write.interval_text(estimate, fraction=metric.fraction):>12}", style="not bold dim")
    return text


def _bar(estimate: Estimate | None) -> Text:
    """Solid up to the interval's lower end, light up to its upper end."""
    from rich.text import Text

    if estimate is None or math.isnan(estimate.value):
        return Text()
    low, high = (round(BAR_WIDTH * end) for end in (estimate.low, estimate.high))
    return Text.assemble(("━" * low, "cyan"), ("┄" * (high - low), "cyan"), " " * (BAR_WIDTH - high))


def _notes(table: LeaderboardTable) -> Iterator[Text]:
    """What stands behind each flag, under the number that its row bears."""
    from rich.text import Text

    numbers = write.note_numbers(table)
    for row in table.rows:
        for finding in row.findings:
            mark = (f"[{numbers[row.cell_ids]}] ", "yellow")
            yield Text.assemble(mark, (finding.code, "bold"), f"  {write.printable(finding.line)}")
