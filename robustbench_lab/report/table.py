"""The leaderboard in a terminal, and the same as plain text."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from robustbench_lab.contracts import Estimate
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardRow, LeaderboardTable, NamedMetric
from robustbench_lab.records import Verdict
from robustbench_lab.report import formatting as write

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

PLAIN_WIDTH = 100
GAP = 2
"""Between columns."""
BAR_WIDTH = 12
MODEL_WIDTH = 36
"""Longer names are cut in the middle; every other format has them whole."""
ATTACKS_WIDTH = 60
"""Of further attacks only the number is shown; every other format names them all."""
FOLDED_WIDTH = 16
"""Columns that can be folded get at least as much before others are left out for them."""
ALWAYS = 1000
"""What no narrow terminal takes from a table: ranks, names, the main metric and what it is without attack."""
UNTIL_BAR, UNTIL_INTERVALS, UNTIL_TIME, UNTIL_PASSES = range(4)
"""The last step of narrowing that has each; after them the further metrics go, from the right, and then the verdict."""
VERDICT_STYLES = {Verdict.RELIABLE: "green", Verdict.SUSPECT: "yellow", Verdict.FAILED: "red"}
NO_RESULTS = (
    "No results here. `rbl run --attack pgd` makes some; `rbl leaderboard` without filters shows all there are."
)


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
            yield _fitting(table, options)
            if hidden > 0:
                yield Text(f"... and {hidden} more: `--rows 0` shows all", style="dim")
            if notes := list(_notes(table)):
                yield Text()
                yield from notes
            yield Text()
        example = self.leaderboard.tables[-1].main_metric.name
        yield Text(f"{write.EXPLANATION} What a column is: `rbl describe {example}`.", style="dim")


def _fitting(table: LeaderboardTable, options: ConsoleOptions) -> Table:
    """With as much detail as there is room for."""
    columns = _columns(table)
    for step in range(max(column.until for column in columns if column.until != ALWAYS) + 2):
        shown = [column for column in columns if column.since <= step <= column.until]
        widths = (column.width_at(step) for column in shown)
        if sum(widths) + GAP * (len(shown) - 1) <= options.max_width:
            break
    return _view(shown, ["" if row.rank else "dim" for row in table.rows])


def _stated(table: LeaderboardTable) -> list[NamedMetric]:
    """Of the figures that are published the main one; every other format has them all."""
    return [metric for metric in table.published if metric == table.main_metric]


@dataclass(frozen=True)
class _Column:
    cells: tuple[Text, ...]
    """One a row."""
    title: str = ""
    right: bool = True
    folds_since: int = ALWAYS
    """The step of narrowing from which on it takes several lines where that makes room for other columns."""
    since: int = 0
    until: int = ALWAYS
    """The steps of narrowing, first and last, at which it stands: at 0 all is shown, each further one has less."""

    @functools.cached_property
    def width(self) -> int:
        """Where nothing is folded."""
        from rich.cells import cell_len

        return max(*(cell.cell_len for cell in self.cells), *(cell_len(line) for line in self.title.split("\n")))

    def width_at(self, step: int) -> int:
        """What it asks for: to be folded takes less from a table than whole columns that are left out."""
        return min(self.width, FOLDED_WIDTH) if step >= self.folds_since else self.width


def _view(columns: Sequence[_Column], styles: Sequence[str]) -> Table:
    """styles: of each row."""
    from rich import box
    from rich.table import Table

    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.right else "left"
        if column.folds_since != ALWAYS:
            view.add_column(column.title, justify=justify, overflow="fold")
        else:  # a width that is given is not measured anew; Rich adds the gap to the last column's
            width = None if column is columns[-1] else column.width
            view.add_column(column.title, justify=justify, no_wrap=True, width=width)
    for style, *cells in zip(styles, *(column.cells for column in columns), strict=True):
        view.add_row(*cells, style=style)
    return view


def _columns(table: LeaderboardTable) -> list[_Column]:
    """All that a table can show, from left to right."""
    from rich.text import Text

    rows = table.rows
    further = [metric for metric in write.brief_metrics(table) if not _always_stands(metric, table)]
    until = {metric: UNTIL_PASSES + len(further) - place for place, metric in enumerate(further)}
    until_verdict = UNTIL_PASSES + len(further) + 1
    return [
        _Column(tuple(Text(f"{row.rank_label:<2}", style="bold" if row.rank == 1 else "") for row in rows), "#"),
        _Column(tuple(_models(table)), "Model", right=False, folds_since=until_verdict),
        *(
            column
            for metric in write.brief_metrics(table)
            for column in _metric_columns(table, metric, until.get(metric, ALWAYS))
        ),
        *(_published_column(table, metric) for metric in _stated(table)),
        _Column(tuple(Text(_attacks(row)) for row in rows), "Attacks", right=False, folds_since=UNTIL_TIME),
        _Column(tuple(Text(write.passes_text(row)) for row in rows), "Passes", until=UNTIL_PASSES),
        _Column(tuple(Text(write.seconds_text(row)) for row in rows), "Time", until=UNTIL_TIME),
        _Column(tuple(_verdict(row.verdict) for row in rows), "Verdict", right=False, until=until_verdict),
    ]


def _models(table: LeaderboardTable) -> Iterator[Text]:
    from rich.text import Text

    notes = write.note_numbers(table)
    for row in table.rows:
        note = notes.get(row.cell_ids)
        mark = "" if note is None else f" [{note}]"
        yield Text.assemble((write.shorten(write.printable(row.name), MODEL_WIDTH), "cyan"), (mark, "yellow"))


def _always_stands(metric: NamedMetric, table: LeaderboardTable) -> bool:
    return metric == table.main_metric or metric.name == table.main_metric.clean


def _metric_columns(table: LeaderboardTable, metric: NamedMetric, until: int) -> Iterator[_Column]:
    """until: the step of narrowing that has it last."""
    title = write.metric_title(metric.name).replace(" ", "\n")
    estimates = [row.metrics.get(metric.name) for row in table.rows]
    if metric != table.main_metric:
        full, brief = (
            tuple(_estimate(one, metric, interval=interval) for one in estimates) for interval in (True, False)
        )
        yield _Column(full, title, until=UNTIL_INTERVALS)
        yield _Column(brief, title, since=UNTIL_INTERVALS + 1, until=until)
        return
    yield _Column(tuple(_estimate(one, metric, main=True, interval=True) for one in estimates), title)
    if metric.fraction:
        yield _Column(tuple(_bar(one) for one in estimates), right=False, until=UNTIL_BAR)


def _published_column(table: LeaderboardTable, metric: NamedMetric) -> _Column:
    from rich.text import Text

    title = write.published_title(metric).replace(" ", "\n")
    return _Column(tuple(Text(write.published_text(row, metric)) for row in table.rows), title)


def _verdict(verdict: Verdict | None) -> Text:
    from rich.text import Text

    return Text(write.ABSENT) if verdict is None else Text(verdict.value, VERDICT_STYLES[verdict])


def _attacks(row: LeaderboardRow) -> str:
    """As many as fit in ATTACKS_WIDTH; one at least."""
    shown: list[str] = []
    for attack in row.attacks:
        label = write.printable(attack.label)
        if shown and len(", ".join([*shown, label])) > ATTACKS_WIDTH:
            break
        shown.append(label)
    hidden = len(row.attacks) - len(shown)
    return ", ".join([*shown, f"{hidden} more"] if hidden else shown) or write.ABSENT


def _estimate(estimate: Estimate | None, metric: NamedMetric, *, main: bool = False, interval: bool) -> Text:
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
    """What stands behind each flag, under the number that its rows bear."""
    from rich.text import Text

    for note in write.notes(table):
        for finding in note.findings:
            mark = (f"[{note.number}] ", "yellow")
            yield Text.assemble(mark, (write.printable(finding.code), "bold"), f"  {write.printable(finding.line)}")
