"""Tables of names and facts for a terminal: where it is narrow, columns with less weight are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robustbench_lab.printable_text import printable

if TYPE_CHECKING:
    from rich.table import Table

GAP = 2


@dataclass(frozen=True)
class ListingColumn:
    """What a column is, beside its texts."""

    title: str
    right: bool = False
    least: int | None = None
    """Characters below which its lines are not folded; None: it is never folded."""
    minor: int = 0
    """The highest is left out first where there is little room; 0: never."""


def listing_table(columns: Sequence[ListingColumn], rows: Sequence[Sequence[str]], width: int) -> Table:
    """rows: a text for each column, shown without control characters. width: of the terminal."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    texts = [[printable(text) for text in row] for row in rows]
    wholes = [max(map(cell_len, (one.title, *(row[at] for row in texts)))) for at, one in enumerate(columns)]
    shown = _shown(columns, wholes, width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for place, given in shown.items():
        column = columns[place]
        justify: Literal["right", "left"] = "right" if column.right else "left"
        own = given if place != max(shown) else None  # Rich adds the gap to the last column's
        table.add_column(Text(column.title), justify=justify, overflow="fold", no_wrap=column.least is None, width=own)
    for row in texts:
        table.add_row(*(Text(row[place]) for place in shown))
    return table


def _shown(columns: Sequence[ListingColumn], wholes: Sequence[int], width: int) -> dict[int, int]:
    """Places of the columns for which there is room, each with its width. wholes: widths without folding."""
    least = [whole if one.least is None else min(whole, one.least) for one, whole in zip(columns, wholes, strict=True)]
    shown = dict(enumerate(least))
    while (spare := width - sum(shown.values()) - GAP * (len(shown) - 1)) < 0:
        most = max(shown, key=lambda place: columns[place].minor)
        if not columns[most].minor:
            return shown
        del shown[most]
    for _ in range(spare):  # to the first column, which holds names, and then to the narrowest
        if wanting := [place for place in shown if shown[place] < wholes[place]]:
            shown[min(wanting, key=lambda place: (place > 0, shown[place]))] += 1
    return shown


def version_text(version: str) -> str:
    """As it is; of a hash, which is the version of a single file, the beginning."""
    return version[:8] if re.fullmatch(r"[0-9a-f]{64}", version) else version
