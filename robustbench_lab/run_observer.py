"""What a run tells those who watch it (progress displays, plugins)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_lab.errors import describe_error
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, CellRecord, UnitRecord, WorkUnit


@dataclass(frozen=True)
class UnitProgress:
    """How far a work unit is."""

    unit: WorkUnit
    slot: Slot
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

    def slots_known(self, slots: Sequence[Slot]) -> None:
        """The slots the run uses; after `run_started`, before any unit."""

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:
        """A work unit begins on a slot."""

    def unit_progressed(self, progress: UnitProgress) -> None:
        """Several times a second at most."""

    def unit_retried(self, unit: WorkUnit, slot: Slot, reason: str) -> None:
        """The unit's worker was lost, as the reason says; the unit begins again on a fresh one."""

    def unit_finished(self, record: UnitRecord, slot: Slot) -> None:
        """A work unit has ended, with whatever status, and is stored next."""

    def cell_finished(self, record: CellRecord) -> None:
        """The cell is in the store."""

    def cell_found(self, record: CellRecord) -> None:
        """Another run has stored the cell meanwhile; it comes without outcomes."""

    def run_waiting(self, cells: int) -> None:
        """All that is left are so many cells that other runs on the same database evaluate."""

    def run_stopping(self, reason: str) -> None:
        """No more units are given out (Ctrl-C, --max-hours, --max-cells); what runs is finished."""

    def run_finished(self, interrupted: bool) -> None:
        """No more calls follow."""


class GuardedObserver(RunObserver):
    """Passes calls on to an observer. One that raises is dropped with a warning, and the run goes on."""

    def __init__(self, observer: RunObserver) -> None:
        self._observer: RunObserver | None = observer

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:
        """Passed on."""
        self._tell("run_started", run_id, to_do, stored)

    def slots_known(self, slots: Sequence[Slot]) -> None:
        """Passed on."""
        self._tell("slots_known", slots)

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:
        """Passed on."""
        self._tell("unit_started", unit, slot)

    def unit_progressed(self, progress: UnitProgress) -> None:
        """Passed on."""
        self._tell("unit_progressed", progress)

    def unit_retried(self, unit: WorkUnit, slot: Slot, reason: str) -> None:
        """Passed on."""
        self._tell("unit_retried", unit, slot, reason)

    def unit_finished(self, record: UnitRecord, slot: Slot) -> None:
        """Passed on."""
        self._tell("unit_finished", record, slot)

    def cell_finished(self, record: CellRecord) -> None:
        """Passed on."""
        self._tell("cell_finished", record)

    def cell_found(self, record: CellRecord) -> None:
        """Passed on."""
        self._tell("cell_found", record)

    def run_waiting(self, cells: int) -> None:
        """Passed on."""
        self._tell("run_waiting", cells)

    def run_stopping(self, reason: str) -> None:
        """Passed on."""
        self._tell("run_stopping", reason)

    def run_finished(self, interrupted: bool) -> None:
        """Passed on."""
        self._tell("run_finished", interrupted)

    def _tell(self, event: str, *what: Any) -> None:
        observer = self._observer
        if observer is None:
            return
        try:
            getattr(observer, event)(*what)
        except (Exception, SystemExit) as error:  # Ctrl-C passes
            self._observer = None
            text = f"observer {type(observer).__name__} is dropped: {event}: {describe_error(error)}"
            warnings.warn(text, stacklevel=2)
