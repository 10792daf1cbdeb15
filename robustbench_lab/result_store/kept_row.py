"""A leaderboard row that a database keeps beside the cells it follows from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KeptRow:
    """A row, as far as the database knows it."""

    row_id: str
    """`comparable_cells.row_id` of its cells."""
    state: str
    """Another one after every change of its cells."""
    rules: str | None
    """What the summary was made by; None where there is no summary, or its cells have changed since."""
    summary: str | None
