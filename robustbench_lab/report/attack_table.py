"""Compared attacks in a terminal, and the texts of each for other formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lab.report import formatting as write
from robustbench_lab.report.attack_comparison import AttackTable, ComparedAttack
from robustbench_lab.report.listing_table import ListingColumn, listing_table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

EXPLANATION = (
    "Found: of the samples that any attack broke, the share that this one broke, the mean over models, with its 95% "
    "interval. Alone: samples that no other attack broke. Optimality: how near it comes at every budget, for attacks "
    "that look for the nearest input (AttackBench's). Passes: forward/backward per sample, the mean over models. "
    "Attacks with the same rank (1=) cannot be told apart by a paired test."
)
COLUMNS = (
    ListingColumn("#"),
    ListingColumn("Attack", least=16),
    ListingColumn("Found", right=True),
    ListingColumn("95% interval", right=True, minor=3),
    ListingColumn("Alone", right=True),
    ListingColumn("Optimality", right=True, minor=4),
    ListingColumn("Models", right=True, minor=5),
    ListingColumn("Passes", right=True),
    ListingColumn("Time", right=True, minor=1),
    ListingColumn("Verdict", minor=2),
)
TITLES = tuple(column.title for column in COLUMNS)


def texts(row: ComparedAttack) -> tuple[str, ...]:
    """One for each of `COLUMNS`."""
    return (
        row.rank_label,
        write.printable(row.label),
        write.value_text(row.found, fraction=True),
        write.interval_text(row.found, fraction=True),
        f"{row.alone:,}",
        write.ABSENT if row.optimality is None else f"{row.optimality:.3f}",
        f"{row.models:,}",
        write.passes_text(row),
        write.duration_text(row.wall_seconds),
        write.ABSENT if row.verdict is None else row.verdict.value,
    )


def summary(table: AttackTable) -> str:
    """`2 models, 401 samples broken by any attack`."""
    return f"{write.count_text(table.models, 'model')}, {write.count_text(table.broken, 'sample')} broken by any attack"


def renderable(tables: Sequence[AttackTable]) -> RenderableType:
    """For a Rich console; columns with less weight are left out where it is narrow."""
    return _TerminalView(tables)


@dataclass(frozen=True)
class _TerminalView:
    tables: Sequence[AttackTable]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        for table in self.tables:
            yield Text.assemble((write.heading(table.about), "bold"), (f"   {summary(table)}", "dim"))
            yield listing_table(COLUMNS, [texts(row) for row in table.rows], options.max_width)
            yield Text()
        yield Text(EXPLANATION, style="dim")
