"""Progress of a run on stderr: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from robustbench_lab.cli.cell_words import cell_name, result_text
from robustbench_lab.contracts import MetricSpec
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, CellRecord, WorkUnit
from robustbench_lab.report.formatting import count_text
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.tracking.run_tracker import RunTracker


def progress_observers(tracker: RunTracker, headline: Mapping[str, Sequence[MetricSpec]]) -> list[RunObserver]:
    """What suits stderr. headline: of each task the metrics that lines about cells name."""
    if not sys.stderr.isatty():
        return [LineProgress(headline)]
    from robustbench_lab.cli.live_view import LiveView

    return [LiveView(tracker, headline)]


class LineProgress(RunObserver):
    """One line when a cell ends."""

    def __init__(self, headline: Mapping[str, Sequence[MetricSpec]]) -> None:
        self._total = self._done = 0
        self._headline = headline

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:
        """Say what is to come."""
        self._total = len(to_do)
        self._say(f"run {run_id}: {count_text(len(to_do), 'cell')} to evaluate, {stored} stored already")

    def unit_retried(self, unit: WorkUnit, slot: Slot, reason: str) -> None:
        """Say what was lost."""
        self._say(f"{slot.name}: {cell_name(unit.cell)} begins again: {reason}")

    def cell_finished(self, record: CellRecord) -> None:
        """Say what came out."""
        self._done += 1
        self._say(f"[{self._done}/{self._total}] {cell_name(record.cell)}: {result_text(record, self._headline)}")

    def cell_found(self, record: CellRecord) -> None:
        """Say that somebody else did it."""
        self._done += 1
        self._say(f"[{self._done}/{self._total}] {cell_name(record.cell)}: evaluated by another run")

    def run_waiting(self, cells: int) -> None:
        """Say why nothing happens."""
        self._say(f"waiting for {count_text(cells, 'cell')} that other runs evaluate")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201
