"""A run in a terminal: a line for each slot, one for the run, and above them a line for every cell that ends."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from robustbench_lab.cli.cell_words import cell_name, result_text
from robustbench_lab.cli.terminal_capture import TerminalCapture
from robustbench_lab.contracts import MetricSpec
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.hardware.gpus import Gpu, Nvml
from robustbench_lab.records import CellRecord, WorkUnit
from robustbench_lab.report.formatting import printable
from robustbench_lab.report.run_view import run_line, slot_lines
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.tracking.run_tracker import RunTracker

if TYPE_CHECKING:
    from rich.text import Text

UPDATES_A_SECOND = 4
LINES_BESIDE = 3
"""For the run, and so that something of what was printed above stays in sight."""


class LiveView(RunObserver):
    """Draws what a tracker knows, a few times a second."""

    def __init__(self, tracker: RunTracker, headline: Mapping[str, Sequence[MetricSpec]]) -> None:
        self._tracker = tracker
        self._headline = headline
        self._gpus = _GpuWatch()
        self._shown: _Shown | None = None

    def slots_known(self, slots: Sequence[Slot]) -> None:  # noqa: ARG002 (the tracker knows them, too)
        """Take the terminal; a run with nothing to do leaves it alone."""
        if self._tracker.state().to_do:
            self._shown = _Shown(self._draw)

    def unit_retried(self, unit: WorkUnit, slot: Slot, reason: str) -> None:
        """Leave a line above."""
        self._say(f"{slot.name}: {cell_name(unit.cell)} begins again: {reason}")

    def cell_finished(self, record: CellRecord) -> None:
        """Leave a line above."""
        self._say(f"{cell_name(record.cell)}: {result_text(record, self._headline)}")

    def cell_found(self, record: CellRecord) -> None:
        """Leave a line above."""
        self._say(f"{cell_name(record.cell)}: evaluated by another run")

    def run_finished(self, interrupted: bool) -> None:  # noqa: ARG002 (the observer's)
        """Give the terminal back."""
        if self._shown is not None:
            self._shown.close()
            self._shown = None

    def _say(self, line: str) -> None:
        if self._shown is not None:
            self._shown.say(line)

    def _draw(self, width: int, height: int) -> list[str]:
        state = self._tracker.state().document()
        most = max(height - LINES_BESIDE, 2)
        return [*slot_lines(state, self._gpus.read(), width, most), run_line(state)]


class _Shown:
    """The terminal while the view is on it. `draw`: columns and lines of the terminal to lines of text."""

    def __init__(self, draw: Callable[[int, int], list[str]]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._draw = draw
        self._terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace")
        self._console = Console(file=self._terminal, highlight=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._renderable,
            refresh_per_second=UPDATES_A_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._capture = TerminalCapture(self.say)
        self._capture.start()
        self._live.start(refresh=True)

    def say(self, line: str) -> None:
        """A line above the view."""
        from rich.text import Text

        self._console.print(Text(printable(Text.from_ansi(line).plain)))

    def close(self) -> None:
        """Everything that was said stays."""
        self._capture.stop()
        self._live.stop()
        self._terminal.close()

    def _renderable(self) -> Text:
        from rich.console import ConsoleDimensions
        from rich.text import Text

        # Rich would look at the streams that are captured. Some terminals say that they have no columns at all.
        columns, lines = os.get_terminal_size(self._terminal.fileno())
        self._console.size = ConsoleDimensions(columns or 80, lines or 25)
        return Text("\n".join(self._draw(*self._console.size)), no_wrap=True, overflow="ellipsis")


class _GpuWatch:
    """GPUs by device, looked at once a second. Empty where the driver cannot be asked."""

    def __init__(self) -> None:
        self._seen: dict[str, Gpu] = {}
        self._seen_at = -math.inf
        try:
            self._nvml: Nvml | None = Nvml()
        except OSError:  # no driver, or no package for it: the view does without
            self._nvml = None

    def read(self) -> dict[str, Gpu]:
        if self._nvml is not None and time.monotonic() - self._seen_at >= 1:
            self._seen_at = time.monotonic()
            try:
                self._seen = {gpu.device: gpu for gpu in self._nvml.read()}
            except OSError:  # a GPU that has gone: the run itself will say so
                self._seen = {}
        return self._seen
