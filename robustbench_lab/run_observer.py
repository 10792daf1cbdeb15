"""What a run tells those who watch it (progress displays, plugins)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_lab.records import Cell, CellRecord, WorkUnit


@dataclass(frozen=True)
class UnitProgress:
    """How far a work unit is."""

    unit: WorkUnit
    samples: int
    """Samples of the unit."""
    unbroken: int
    """Right before the attack and not broken so far."""
    forward_passes: int
    """So far, summed over samples."""
    backward_passes: int


class RunObserver:
    """Override what you need. Called in the scheduler's process, one call at a time."""

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:
        """`to_do`: the cells to evaluate; `stored`: how many of the plan's cells were in the store already."""

    def unit_started(self, unit: WorkUnit, device: str) -> None:
        """A work unit begins on a device."""

    def unit_progressed(self, progress: UnitProgress) -> None:
        """Several times a second at most."""

    def cell_finished(self, record: CellRecord) -> None:
        """The cell is in the store."""

    def run_finished(self, interrupted: bool) -> None:
        """No more calls follow."""
