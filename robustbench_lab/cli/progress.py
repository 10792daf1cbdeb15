"""Progress of a run on stderr: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustbench_lab.records import Cell, CellRecord, WorkUnit
from robustbench_lab.report.formatting import eps_text, printable, shorten
from robustbench_lab.run_observer import RunObserver, UnitProgress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def progress_observers() -> list[RunObserver]:
    """What suits stderr."""
    return [BarProgress()] if sys.stderr.isatty() else [LineProgress()]


def cell_name(cell: Cell) -> str:
    """`pgd · digits-cnn · linf 8/255`; long labels are cut in the middle."""
    defended = cell.model.label if cell.defense.label == "none" else f"{cell.model.label} + {cell.defense.label}"
    parts = (shorten(printable(cell.attack.label), 30), shorten(printable(defended), 36), cell.threat_model.name)
    return f"{' · '.join(parts)} {eps_text(cell.eps)}"


def result_text(record: CellRecord) -> str:
    """What a finished cell gave, in a few words."""
    if record.reason:
        return f"{record.status.value}: {record.reason}"
    values = ", ".join(f"{name.replace('_', ' ')} {one.value:.1%}" for name, one in record.metrics.items())
    return f"{values} ({record.wall_seconds:.1f} s)"


class LineProgress(RunObserver):
    """One line when a cell ends."""

    def __init__(self) -> None:
        self._total = self._done = 0

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:
        """Say what is to come."""
        self._total = len(to_do)
        self._say(f"run {run_id}: {len(to_do)} cells to evaluate, {stored} stored already")

    def cell_finished(self, record: CellRecord) -> None:
        """Say what came out."""
        self._done += 1
        self._say(f"[{self._done}/{self._total}] {cell_name(record.cell)}: {result_text(record)}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201


class BarProgress(RunObserver):
    """A bar for the run and one for the work unit at hand, with its running robust accuracy and speed."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
        )
        self._progress: Progress = Progress(*columns, console=Console(stderr=True, highlight=False))
        self._cells: TaskID | None = None
        self._unit: TaskID | None = None
        self._began = 0.0
        self._done = 0
        self._of = ""

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:  # noqa: ARG002 (the observer's)
        """Open the display."""
        if not to_do:
            return
        self._progress.start()
        self._of = f" of {len(to_do)}" + (f", {stored} stored before" if stored else "")
        self._cells = self._progress.add_task("cells", total=len(to_do), note=f"0{self._of}")

    def unit_started(self, unit: WorkUnit, device: str) -> None:
        """Open the unit's bar."""
        self._drop_unit()
        self._began = time.monotonic()
        samples = unit.stop - unit.start
        total = samples * (unit.cell.estimated_forward + unit.cell.estimated_backward) or None
        self._unit = self._progress.add_task(f"  {cell_name(unit.cell)}", total=total, note=device)

    def unit_progressed(self, progress: UnitProgress) -> None:
        """Move the unit's bar."""
        if self._unit is None:
            return
        passes = progress.forward_passes + progress.backward_passes
        speed = passes / max(time.monotonic() - self._began, 1e-6)
        note = f"robust {progress.unbroken / progress.samples:.1%}, {speed:,.0f} passes/s"
        self._progress.update(self._unit, completed=passes, note=note)

    def cell_finished(self, record: CellRecord) -> None:
        """Leave a line above the bars."""
        self._drop_unit()
        from rich.text import Text

        self._progress.console.print(Text(f"{cell_name(record.cell)}: {result_text(record)}"))
        if self._cells is not None:
            self._done += 1
            self._progress.update(self._cells, completed=self._done, note=f"{self._done}{self._of}")

    def run_finished(self, interrupted: bool) -> None:  # noqa: ARG002 (the observer's)
        """Close the display."""
        self._drop_unit()
        if self._cells is not None:
            self._progress.remove_task(self._cells)
        self._progress.stop()

    def _drop_unit(self) -> None:
        if self._unit is not None:
            self._progress.remove_task(self._unit)
            self._unit = None
