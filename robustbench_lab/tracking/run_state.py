"""What a run does at one moment: for live views, summaries, and `rbl status` from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, WorkUnit
from robustbench_lab.run_observer import UnitProgress


@dataclass(frozen=True)
class SlotState:
    """A slot at one moment."""

    slot: Slot
    unit: WorkUnit | None
    """What it evaluates; None while it waits."""
    progress: UnitProgress | None
    seconds: float
    """Since the unit began."""
    busy_seconds: float
    """In which it evaluated anything, this unit included."""
    units: int
    """It has finished."""

    @property
    def passes(self) -> int:
        """Forward and backward passes of the unit so far, summed over samples."""
        return self.progress.forward_passes + self.progress.backward_passes if self.progress else 0


@dataclass(frozen=True)
class RunState:
    """A run at one moment. Cells `stored` are those that were in the database before it."""

    run_id: str
    slots: tuple[SlotState, ...]
    to_do: int
    """Cells this run is to evaluate."""
    stored: int
    ok: int
    failed: int
    skipped: int
    found: int
    """Cells that other runs have stored meanwhile."""
    units: int
    """Finished."""
    retries: int
    passes: int
    """Forward and backward, summed over samples, of running units too."""
    seconds: float
    """Since the run began."""
    seconds_left: float | None
    """Until the run ends; None while nothing tells."""
    stopping: str | None
    """Why no more units begin; None while they do."""
    waiting: int
    """Cells of other runs that it waits for; 0 while there is anything else to do."""

    @property
    def done(self) -> int:
        """Cells that this run has closed, however they ended."""
        return self.ok + self.failed + self.skipped

    @property
    def passes_per_second(self) -> float:
        """Of all slots together, over the whole run."""
        return self.passes / self.seconds if self.seconds > 0 else 0.0

    def busy_share(self, slot: SlotState) -> float:
        """Share of the run's time in which a slot evaluated something."""
        return min(slot.busy_seconds / self.seconds, 1.0) if self.seconds > 0 else 0.0

    def document(self) -> dict[str, Any]:
        """JSON-able: what `rbl status --json` shows, and what goes through the database for it."""
        return {
            "to_do": self.to_do,
            "stored": self.stored,
            "ok": self.ok,
            "failed": self.failed,
            "skipped": self.skipped,
            "found": self.found,
            "left": self.to_do - self.done - self.found,
            "units": self.units,
            "retries": self.retries,
            "passes": self.passes,
            "passes_per_second": self.passes_per_second,
            "seconds": self.seconds,
            "seconds_left": self.seconds_left,
            "stopping": self.stopping,
            "waiting": self.waiting,
            "slots": [self._slot(slot) for slot in self.slots],
        }

    def _slot(self, state: SlotState) -> dict[str, Any]:
        return {
            "slot": state.slot.name,
            "device": state.slot.device,
            "units": state.units,
            "busy_share": self.busy_share(state),
            "work": None if state.unit is None else _work(state, state.unit),
        }


def cell_labels(cell: Cell) -> dict[str, Any]:
    """What a cell is about, by the labels of its parts."""
    return {
        "task": cell.task,
        "model": cell.model.label,
        "defense": cell.defense.label,
        "dataset": cell.dataset.label,
        "attack": cell.attack.label,
        "objective": cell.objective.label,
        "threat_model": cell.threat_model.label,
        "norm": cell.norm,
        "eps": cell.eps,
        "adversary": cell.adversary,
        "seed": cell.seed,
    }


def _work(state: SlotState, unit: WorkUnit) -> dict[str, Any]:
    return {
        "cell_id": unit.cell.cell_id,
        **cell_labels(unit.cell),
        "start": unit.start,
        "stop": unit.stop,
        "unbroken": None if state.progress is None else state.progress.unbroken,
        "passes": state.passes,
        "seconds": state.seconds,
    }
