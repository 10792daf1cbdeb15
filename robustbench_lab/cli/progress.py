"""Progress of a run on stderr: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from robustbench_lab.records import Cell, CellRecord
from robustbench_lab.report.formatting import eps_text, printable, shorten, value_text
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.run_tracker import RunTracker


def progress_observers(tracker: RunTracker, shares: Collection[str]) -> list[RunObserver]:
    """What suits stderr. shares: names of the metrics that are shares of 1, shown in percent."""
    if not sys.stderr.isatty():
        return [LineProgress(shares)]
    from robustbench_lab.cli.live_view import LiveView

    return [LiveView(tracker, shares)]


def cell_name(cell: Cell) -> str:
    """`pgd · digits-cnn · linf 8/255`; long labels are cut in the middle."""
    defended = cell.model.label if cell.defense.label == "none" else f"{cell.model.label} + {cell.defense.label}"
    parts = (shorten(printable(cell.attack.label), 30), shorten(printable(defended), 36), cell.threat_model.name)
    return f"{' · '.join(parts)} {eps_text(cell.eps)}"


def result_text(record: CellRecord, shares: Collection[str]) -> str:
    """What a finished cell gave, in a few words."""
    if record.reason:
        return f"{record.status.value}: {printable(record.reason)}"
    # The first two of a task are its main metric and what it is without attack.
    first = list(record.metrics.items())[:2]
    values = ", ".join(f"{name.replace('_', ' ')} {value_text(one, fraction=name in shares)}" for name, one in first)
    return f"{values} ({record.wall_seconds:.1f} s)"


class LineProgress(RunObserver):
    """One line when a cell ends."""

    def __init__(self, shares: Collection[str]) -> None:
        self._total = self._done = 0
        self._shares = shares

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:
        """Say what is to come."""
        self._total = len(to_do)
        self._say(f"run {run_id}: {len(to_do)} cells to evaluate, {stored} stored already")

    def cell_finished(self, record: CellRecord) -> None:
        """Say what came out."""
        self._done += 1
        self._say(f"[{self._done}/{self._total}] {cell_name(record.cell)}: {result_text(record, self._shares)}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201
