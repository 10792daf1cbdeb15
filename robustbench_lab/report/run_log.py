"""The log of a run: one line of JSON for each event, in a file of its own. Schema: docs/schemas/run-log.schema.json.

Lines are complete as soon as the event is over, so that the log can be followed and survives a kill. Texts from plugins
are escaped to ASCII: no name can forge a line or move a cursor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, CellRecord, Finding, UnitRecord, WorkUnit
from robustbench_lab.report.json_documents import SCHEMA_VERSION, plain_json
from robustbench_lab.run_observer import RunObserver, UnitProgress
from robustbench_lab.tracking.run_state import cell_labels

PROGRESS_SECONDS = 30.0
"""Between two lines about one unit at least: a weekend on 8 GPUs takes some 10 MB."""


class RunLog(RunObserver):
    """Writes `<folder>/<run id>.jsonl`. Made when the run begins; a run with nothing to do writes none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: TextIO | None = None
        self._run_id = ""
        self._began = 0.0
        self._units: dict[str, tuple[float, float]] = {}
        """Slot to when its unit began, and when it was last written of."""

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:
        """Open the file."""
        if not to_do:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = (self._folder / f"{run_id}.jsonl").open("w", encoding="ascii", buffering=1)
        self._run_id, self._began = run_id, time.monotonic()
        self._write("run_started", cells=len(to_do), stored=stored)

    def slots_known(self, slots: Sequence[Slot]) -> None:
        """Where units run."""
        self._write("slots_known", slots=[{"slot": one.name, "device": one.device} for one in slots])

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:
        """Which cell it belongs to."""
        self._units[slot.name] = (time.monotonic(),) * 2
        self._write("unit_started", slot=slot.name, **_slice(unit), **cell_labels(unit.cell))

    def unit_progressed(self, progress: UnitProgress) -> None:
        """Now and then."""
        name, now = progress.slot.name, time.monotonic()
        began, written = self._units.get(name, (now, now))
        if now - written < PROGRESS_SECONDS:
            return
        self._units[name] = began, now
        self._write(
            "unit_progressed",
            slot=name,
            **_slice(progress.unit),
            unbroken=progress.unbroken,
            forward_passes=progress.forward_passes,
            backward_passes=progress.backward_passes,
            seconds=round(now - began, 3),
        )

    def unit_retried(self, unit: WorkUnit, slot: Slot, reason: str) -> None:
        """Why its worker was lost."""
        self._write("unit_retried", slot=slot.name, **_slice(unit), reason=reason)

    def unit_finished(self, record: UnitRecord, slot: Slot) -> None:
        """What it gave."""
        self._write(
            "unit_finished",
            slot=slot.name,
            cell_id=record.cell_id,
            start=record.start,
            stop=record.stop,
            status=record.status.value,
            reason=record.reason,
            forward_passes=record.forward_passes,
            backward_passes=record.backward_passes,
            seconds=record.wall_seconds,
            batch_size=record.batch_size,
            findings=_codes(record.findings),
        )

    def cell_finished(self, record: CellRecord) -> None:
        """What is stored of it."""
        self._write(
            "cell_finished",
            cell_id=record.cell.cell_id,
            **cell_labels(record.cell),
            status=record.status.value,
            reason=record.reason,
            metrics={name: one.value for name, one in record.metrics.items()},
            forward_per_sample=record.forward_per_sample,
            backward_per_sample=record.backward_per_sample,
            seconds=record.wall_seconds,
            verdict=record.verdict and record.verdict.value,
            findings=_codes(record.findings),
        )

    def cell_found(self, record: CellRecord) -> None:
        """Another run has evaluated it."""
        self._write("cell_found", cell_id=record.cell.cell_id, **cell_labels(record.cell), status=record.status.value)

    def run_waiting(self, cells: int) -> None:
        """For other runs."""
        self._write("run_waiting", cells=cells)

    def run_stopping(self, reason: str) -> None:
        """Why."""
        self._write("run_stopping", reason=reason)

    def run_finished(self, interrupted: bool) -> None:
        """Close the file."""
        self._write("run_finished", interrupted=interrupted, seconds=round(time.monotonic() - self._began, 3))
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, event: str, **what: Any) -> None:
        if self._file is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"schema_version": SCHEMA_VERSION, "time": now, "run_id": self._run_id, "event": event, **what}
        self._file.write(json.dumps(plain_json(line), allow_nan=False) + "\n")


def _slice(unit: WorkUnit) -> dict[str, Any]:
    return {"cell_id": unit.cell.cell_id, "start": unit.start, "stop": unit.stop}


def _codes(findings: Sequence[Finding]) -> list[str]:
    return [finding.code for finding in findings]
