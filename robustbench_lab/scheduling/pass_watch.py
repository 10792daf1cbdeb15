"""What a pass of a model takes, while the first unit on it still runs: that may be for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import WorkUnit
from robustbench_lab.run_observer import RunObserver, UnitProgress
from robustbench_lab.scheduling.unit_costs import UnitCosts

WATCHED_SECONDS = 2.0
"""Of passes, after the first ones: these warm up, and what is loaded before them is no pass."""


@dataclass
class PassWatch(RunObserver):
    """Listens to a run, and tells `costs` of models of which no pass was measured before."""

    costs: UnitCosts
    learned: Callable[[], None] = lambda: None
    """Called when a model's pass is known."""
    clock: Callable[[], float] = time.monotonic
    _first: dict[Slot, tuple[float, int]] = field(default_factory=dict)
    """When a slot's unit was first heard of, and the passes it had made."""

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:  # noqa: ARG002 (the observer's)
        """What the slot's last unit has shown says nothing of this one."""
        self._first.pop(slot, None)

    def unit_progressed(self, progress: UnitProgress) -> None:
        """From two reports far enough apart the seconds of a pass."""
        cell = progress.unit.cell
        now, passes = self.clock(), progress.forward_passes + progress.backward_passes
        began, before = self._first.setdefault(progress.slot, (now, passes))
        if now - began >= WATCHED_SECONDS and passes > before and not self.costs.knows_pass(cell):
            self.costs.glimpse(cell, now - began, passes - before)
            self.learned()
