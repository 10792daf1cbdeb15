"""The units of a run that are still to evaluate: given out one by one until a limit, or the user, ends it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, Status, UnitRecord, WorkUnit
from robustbench_lab.result_store.claims import Claim
from robustbench_lab.scheduling.dispatch import Dispatcher, Order
from robustbench_lab.scheduling.shared_cells import SharedCells
from robustbench_lab.scheduling.unit_costs import UnitCosts

REPRICED_AFTER = 0.02
"""Share of the units that end between two corrections of what the others are expected to cost."""


@dataclass(frozen=True)
class Limits:
    """When a run stops beginning new work."""

    hours: float | None = None
    cells: int | None = None
    """So many cells are evaluated at most."""


@dataclass
class PendingUnits:
    """What executors ask for units (`executors.UnitQueue`)."""

    units: Sequence[WorkUnit]
    slots: Sequence[Slot]
    costs: UnitCosts
    order: Order = Order.COST
    limits: Limits = field(default_factory=Limits)
    told: Callable[[str], None] = lambda _reason: None
    """Called once, when no more units are given out although there are some."""
    cancelled: Callable[[str], None] = lambda _cell_id: None
    """Called with a cancelled cell when units of it are left out."""
    claim: Callable[[str], Claim] = lambda _cell_id: Claim.OURS
    """Asked with each cell before its first unit is given out."""
    stored_elsewhere: Callable[[str], None] = lambda _cell_id: None
    """Called with a cell that another run has stored meanwhile, in place of giving out its units."""
    inherited: Callable[[str], Iterable[WorkUnit]] = lambda _cell_id: ()
    """Called with a cell that another run has left; returns what is still to evaluate of it."""
    recut: Callable[[Sequence[WorkUnit]], Iterable[WorkUnit]] = lambda units: units
    """Called with all units that are left when costs are better known; returns them, too long ones in pieces."""
    clock: Callable[[], float] = time.monotonic
    """Seconds from any moment on."""
    stopped: str | None = None
    """Why no more units are given out."""
    _begun: set[str] = field(default_factory=set)
    _dropped: set[str] = field(default_factory=set)
    _running: dict[Slot, WorkUnit] = field(default_factory=dict)
    _memory: dict[str, float] = field(default_factory=dict)
    """Model identity to the share of a device's memory that it has taken."""
    _ended: int = 0

    def __post_init__(self) -> None:
        self._dispatcher = Dispatcher(self.units, self.costs.seconds, len(self.slots), self.order)
        self._began = self.clock()
        self._on_device = Counter(slot.device for slot in self.slots)
        self._stop_asked: str | None = None
        self._cancel_asked: set[str] = set()
        self._shared = SharedCells(lambda cell_id: self.claim(cell_id), self.clock)

    def take(self, slot: Slot) -> WorkUnit | None:
        """The next unit for a free slot; None: nothing for it now."""
        self._running.pop(slot, None)
        self._look_for_cancelled_cells()
        self._look_at_the_clock()
        self._look_at_other_runs()
        unit = self._next(slot)
        while self._take_in_changes() and unit is None:
            unit = self._next(slot)
        if unit is not None:
            self._running[slot] = unit
            self._count_cell(unit.cell.cell_id)
        return unit

    def waits_for(self) -> int:
        """How many cells are left, where other runs are at every one of them; otherwise 0. Then asks for them again."""
        self._look_for_cancelled_cells()
        self._look_at_the_clock()
        left = {unit.cell.cell_id for unit in self._dispatcher.queued()}
        waits = len(left) if self._shared.hold(left) else 0
        self._look_at_other_runs()
        return waits

    def has_units(self) -> bool:
        """Whether there are units that were not given out."""
        return len(self._dispatcher) > 0

    def stop(self, reason: str) -> None:
        """Give out no more units. Only notes it, so that a signal handler may call it."""
        self._stop_asked = reason

    def cancel(self, cell_ids: Iterable[str]) -> None:
        """Give out no more units of these cells. Only notes it, so that another thread may call it."""
        self._cancel_asked.update(cell_ids)

    def runs(self, cell_id: str) -> bool:
        """Whether a unit of the cell runs now."""
        return any(unit.cell.cell_id == cell_id for unit in self._running.values())

    def reprice(self) -> None:
        """Costs are better known now: order what is left anew."""
        self._ended = 0
        self._dispatcher.reprice(lambda units: self.recut(units))

    def drop(self, cell_id: str) -> None:
        """A cell's other units are not needed any more."""
        self._dropped.add(cell_id)
        self._forget(cell_id)

    def ended(self, cell: Cell, record: UnitRecord) -> bool:
        """Learn from a unit that has ended. False: it is to be evaluated again, alone on its device."""
        unit = (record.cell_id, record.start, record.stop)
        # It may have begun on another slot than it has ended on.
        self._running = {
            slot: one for slot, one in self._running.items() if (one.cell.cell_id, one.start, one.stop) != unit
        }
        alone = self._memory.get(cell.model.identity, 0.0) >= 1
        self._memory[cell.model.identity] = max(self._memory.get(cell.model.identity, 0.0), record.memory_share)
        had_neighbours = self._on_device[record.device] > 1 and not alone
        short = record.status is Status.FAILED and record.memory_share >= 1
        if short and had_neighbours and record.cell_id not in self._dropped:
            self._dispatcher.put_back(WorkUnit(cell, record.start, record.stop))
            return False
        self.costs.observe(cell, record)
        self._ended += 1
        if self._ended >= REPRICED_AFTER * len(self._dispatcher):
            self.reprice()
        return True

    # ------------------------------------------------------------ inside

    def _next(self, slot: Slot) -> WorkUnit | None:
        return self._dispatcher.take(slot, lambda unit: self._fits(unit, slot) and self._is_ours(unit.cell.cell_id))

    def _is_ours(self, cell_id: str) -> bool:
        return cell_id in self._begun or self._shared.is_ours(cell_id)

    def _look_at_other_runs(self) -> None:
        self._shared.ask_again()
        self._take_in_changes()

    def _take_in_changes(self) -> bool:
        """Of the cells that other runs have. Whether there were any."""
        changes = self._shared.changes()
        for cell_id, answer in changes.items():
            if answer is Claim.STORED:
                self.drop(cell_id)
                self.stored_elsewhere(cell_id)
            else:
                self._forget(cell_id)
                for unit in self.inherited(cell_id):
                    self._dispatcher.put_back(unit)
        return bool(changes)

    def _forget(self, cell_id: str) -> None:
        self._shared.forget(cell_id)
        self._dispatcher.drop(lambda unit: unit.cell.cell_id == cell_id)

    def _look_at_the_clock(self) -> None:
        hours = self.limits.hours
        if hours is not None and self.clock() - self._began >= hours * 3600:
            self._leave(f"--max-hours {hours:g} have passed", lambda _unit: True)
        if self._stop_asked:
            # A limit that was reached before says less than that somebody wants an end.
            self._leave(self._stop_asked, lambda _unit: True, outranks=True)

    def _look_for_cancelled_cells(self) -> None:
        while self._cancel_asked:
            cell_id = self._cancel_asked.pop()
            before = len(self._dispatcher)
            self.drop(cell_id)
            if len(self._dispatcher) < before:
                self.cancelled(cell_id)

    def _count_cell(self, cell_id: str) -> None:
        if cell_id in self._begun:
            return
        self._begun.add(cell_id)
        if len(self._begun) == self.limits.cells:
            reason = f"--max-cells {self.limits.cells} have begun"
            self._leave(reason, lambda unit: unit.cell.cell_id not in self._begun)

    def _leave(self, reason: str, unneeded: Callable[[WorkUnit], bool], *, outranks: bool = False) -> None:
        before = len(self._dispatcher)
        self._dispatcher.drop(unneeded)
        if len(self._dispatcher) < before and (outranks or not self.stopped):
            self.stopped = reason
            self.told(reason)

    def _fits(self, unit: WorkUnit, slot: Slot) -> bool:
        """Whether the units on the slot's device, this one included, are expected to have room."""
        others = [running for other, running in self._running.items() if other.device == slot.device]
        usual = 1 / self._on_device[slot.device]
        needs = [self._memory.get(one.cell.model.identity, 0.0) or usual for one in [*others, unit]]
        return not others or sum(needs) <= 1 + 1e-9
