"""What it costs a run to be watched: CPU time of its process, as a share of one core.

    python benchmarks/watching.py

writes results/watching.json. The live view draws to a file, in 120 x 50 characters; the log and the database are files
in a temporary folder. Medians.
"""

from __future__ import annotations

import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from robustbench_lab.cli.live_view import UPDATES_A_SECOND
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, Status, UnitRecord, WorkUnit
from robustbench_lab.report.run_log import RunLog
from robustbench_lab.report.run_view import run_line, slot_lines
from robustbench_lab.result_store import open_store
from robustbench_lab.run_observer import UnitProgress
from robustbench_lab.testing.example_results import example_cell, example_result
from robustbench_lab.tracking.run_heartbeat import BEAT_SECONDS
from robustbench_lab.tracking.run_tracker import RunTracker

RESULTS = Path(__file__).with_name("results") / "watching.json"
SLOTS = (1, 8, 300)
CELLS = 10_000
PROGRESS_EVENTS = 10


def main() -> None:
    figures: dict[str, Any] = {"machine": {"python": platform.python_version()}, "cells": CELLS, "slots": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures["log_and_account_ms_per_unit"] = round(1000 * events_of_a_unit(folder), 3)
        for count in SLOTS:
            tracker = running(count)
            frame, beat = median_cpu(lambda: draw(tracker)), heartbeat(folder, tracker)  # noqa: B023 (called at once)
            figures["slots"][count] = {
                "live_view_ms_per_frame": round(1000 * frame, 2),
                "live_view_share_of_a_core": round(frame * UPDATES_A_SECOND, 4),
                "heartbeat_ms": round(1000 * beat, 2),
                "heartbeat_share_of_a_core": round(beat / BEAT_SECONDS, 4),
            }
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def running(slots: int) -> RunTracker:
    """A run of many cells that is busy in every slot."""
    tracker = RunTracker()
    cells = [cell(index) for index in range(CELLS)]
    places = [Slot(f"cuda:{index}", f"cuda:{index}", 1) for index in range(slots)]
    tracker.run_started("r1", cells, 0)
    tracker.slots_known(places)
    for place, one in zip(places, cells, strict=False):
        unit = WorkUnit(one, 0, len(one.samples.sample_ids))
        tracker.unit_started(unit, place)
        tracker.unit_progressed(UnitProgress(unit, place, 100, 50, 700, 700))
    return tracker


def cell(index: int) -> Cell:
    return replace(example_cell(model=f"resnet-{index}", samples=100), estimated_forward=50, estimated_backward=50)


def draw(tracker: RunTracker) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=50)
    state = tracker.state().document()
    console.print(Text("\n".join([*slot_lines(state, {}, 120, 47), run_line(state)]), no_wrap=True))


def heartbeat(folder: Path, tracker: RunTracker) -> float:
    with open_store(folder / "rbl.db") as store:
        run_id = store.begin_run([], {}, {})
        return median_cpu(lambda: beat(store.board, run_id, tracker))


def beat(board: Any, run_id: str, tracker: RunTracker) -> None:
    board.cancellations(run_id)
    board.beat(run_id, "machine", tracker.state().document())


def events_of_a_unit(folder: Path) -> float:
    """Of a cell of one unit: it begins, progresses, ends, and is stored."""
    slot, observers = Slot("cpu", "cpu", 1), (RunTracker(), RunLog(folder))
    one, result = cell(0), example_result([True] * 100)
    unit = WorkUnit(one, 0, 100)
    record = UnitRecord(one.cell_id, 0, 100, Status.OK, None, None, 5000, 5000, 1.0, (), "cpu", 100)

    def tell() -> None:
        for observer in observers:
            observer.unit_started(unit, slot)
            for _ in range(PROGRESS_EVENTS):
                observer.unit_progressed(UnitProgress(unit, slot, 100, 50, 700, 700))
            observer.unit_finished(record, slot)
            observer.cell_finished(result)

    for observer in observers:
        observer.run_started("r1", [one], 0)
        observer.slots_known([slot])
    return median_cpu(tell)


def median_cpu(work: Callable[[], object]) -> float:
    """Seconds of the process."""
    taken = []
    for _ in range(50):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
