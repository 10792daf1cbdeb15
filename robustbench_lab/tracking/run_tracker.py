"""Keeps account of a run as its events come in. May be read from another thread."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, CellRecord, Status, UnitRecord, WorkUnit
from robustbench_lab.run_observer import RunObserver, UnitProgress
from robustbench_lab.tracking.run_state import RunState, SlotState


def passes_a_sample(cell: Cell) -> float:
    """Passes a sample takes at most; where the attack cannot tell, one each way."""
    return float(max(cell.estimated_forward + cell.estimated_backward, 2))


@dataclass
class _SlotAccount:
    slot: Slot
    unit: WorkUnit | None = None
    began: float = 0.0
    progress: UnitProgress | None = None
    busy_seconds: float = 0.0
    units: int = 0

    def end_unit(self, now: float) -> None:
        if self.unit is not None:
            self.busy_seconds += now - self.began
        self.unit = self.progress = None

    def state(self, now: float) -> SlotState:
        seconds = 0.0 if self.unit is None else now - self.began
        return SlotState(self.slot, self.unit, self.progress, seconds, self.busy_seconds + seconds, self.units)


@dataclass
class _CellWork:
    """Samples of a cell, by whether their units have ended."""

    cell: Cell
    left: int
    done: int = 0

    def finish(self, samples: int) -> None:
        self.left = max(self.left - samples, 0)
        self.done += samples


@dataclass(frozen=True)
class _Sums:
    """Expected seconds."""

    done: float
    left: float
    valid_until: float


@dataclass(frozen=True)
class _Running:
    slot: SlotState
    seconds: float
    """Expected of the whole unit."""
    share: float
    """Of it that is done."""


@dataclass
class RunTracker(RunObserver):
    """Listens to a run."""

    clock: Callable[[], float] = time.monotonic
    price: Callable[[Cell], float] = passes_a_sample
    """What a sample of a cell is expected to take, in any unit: `UnitCosts.seconds_per_sample`."""
    _lock: Lock = field(default_factory=Lock)
    _run_id: str = ""
    _began: float | None = None
    _ended: float | None = None
    _to_do: int = 0
    _stored: int = 0
    _cells: Counter[Status] = field(default_factory=Counter)
    _slots: dict[str, _SlotAccount] = field(default_factory=dict)
    _passes: int = 0
    _retries: int = 0
    _found: int = 0
    _waiting: int = 0
    _stopping: str | None = None
    _work: dict[str, _CellWork] = field(default_factory=dict)
    _sums: _Sums = field(default_factory=lambda: _Sums(0.0, 0.0, -math.inf))

    def state(self) -> RunState:
        """As it is now."""
        with self._lock:
            now = self._now()
            slots = tuple(one.state(now) for one in self._slots.values())
            return RunState(
                run_id=self._run_id,
                slots=slots,
                to_do=self._to_do,
                stored=self._stored,
                ok=self._cells[Status.OK],
                failed=self._cells[Status.FAILED],
                skipped=self._cells[Status.SKIPPED],
                found=self._found,
                units=sum(one.units for one in slots),
                retries=self._retries,
                passes=self._passes + sum(one.passes for one in slots),
                seconds=0.0 if self._began is None else now - self._began,
                seconds_left=self._seconds_left(slots),
                stopping=self._stopping,
                waiting=self._waiting,
            )

    # ------------------------------------------------------------ events

    def run_started(self, run_id: str, to_do: Sequence[Cell], stored: int) -> None:
        """The account begins."""
        with self._lock:
            self._run_id, self._to_do, self._stored = run_id, len(to_do), stored
            self._began = self.clock()
            self._work = {cell.cell_id: _CellWork(cell, len(cell.samples.sample_ids)) for cell in to_do}

    def slots_known(self, slots: Sequence[Slot]) -> None:
        """Where units can run."""
        with self._lock:
            for slot in slots:
                self._account(slot)

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:
        """The slot is busy from now on."""
        with self._lock:
            account = self._account(slot)
            account.end_unit(self._now())
            account.unit, account.began = unit, self._now()
            self._waiting = 0

    def unit_progressed(self, progress: UnitProgress) -> None:
        """How far it is."""
        with self._lock:
            self._account(progress.slot).progress = progress

    def unit_finished(self, record: UnitRecord, slot: Slot) -> None:
        """The slot is free again."""
        with self._lock:
            account = self._account(slot)
            account.end_unit(self._now())
            if work := self._work.get(record.cell_id):
                work.finish(record.stop - record.start)
            account.units += 1
            self._passes += record.forward_passes + record.backward_passes

    def unit_retried(self, unit: WorkUnit, slot: Slot, reason: str) -> None:  # noqa: ARG002 (the observer's)
        """The slot is free, and the unit is still to be done."""
        with self._lock:
            self._account(slot).end_unit(self._now())
            self._retries += 1

    def cell_finished(self, record: CellRecord) -> None:
        """Nothing of the cell is left to do."""
        with self._lock:
            self._cells[record.status] += 1
            self._leave_none(record)

    def cell_found(self, record: CellRecord) -> None:
        """Nothing of the cell is left to do here."""
        with self._lock:
            self._found += 1
            self._leave_none(record)

    def run_waiting(self, cells: int) -> None:
        """The slots are free."""
        with self._lock:
            self._waiting = cells

    def run_stopping(self, reason: str) -> None:
        """Only what runs is finished."""
        with self._lock:
            self._stopping = reason

    def run_finished(self, interrupted: bool) -> None:  # noqa: ARG002 (the observer's)
        """The account is closed: the clock stands still."""
        with self._lock:
            self._ended = self.clock()
            self._waiting = 0
            for account in self._slots.values():
                account.end_unit(self._ended)

    # ------------------------------------------------------------ time left

    def _seconds_left(self, slots: Sequence[SlotState]) -> float | None:
        """What is expected of the rest, corrected by what the work so far has taken, spread over the slots.

        No less than the unit that takes longest.
        """
        if self._ended is not None or not slots:
            return None
        running = [_Running(one, self._expected(one.unit), _share_done(one)) for one in slots if one.unit is not None]
        begun = math.fsum(one.seconds * one.share for one in running)
        sums = self._expected_sums()
        if not sums.done + begun:
            return None
        taken = sum(one.busy_seconds for one in slots) - sum(one.slot.seconds for one in running if not one.share)
        longest = max((one.seconds * (1 - one.share) for one in running), default=0.0)
        return max((sums.left - begun) / len(slots), longest) * taken / (sums.done + begun)

    def _expected_sums(self) -> _Sums:
        """Over all cells; anew as often as takes a hundredth of the time."""
        now = self.clock()
        if now >= self._sums.valid_until:
            done = math.fsum(self.price(one.cell) * one.done for one in self._work.values() if one.done)
            left = math.fsum(self.price(one.cell) * one.left for one in self._work.values() if one.left)
            self._sums = _Sums(done, left, now + 100 * (self.clock() - now))
        return self._sums

    def _expected(self, unit: WorkUnit) -> float:
        return self.price(unit.cell) * (unit.stop - unit.start)

    def _leave_none(self, record: CellRecord) -> None:
        if work := self._work.get(record.cell.cell_id):
            work.left = 0

    def _account(self, slot: Slot) -> _SlotAccount:
        return self._slots.setdefault(slot.name, _SlotAccount(slot))

    def _now(self) -> float:
        return self.clock() if self._ended is None else self._ended


def _share_done(slot: SlotState) -> float:
    """Of the unit that runs there, by its passes; 0 where the attack cannot tell how many it takes."""
    if slot.unit is None:
        return 0.0
    cell = slot.unit.cell
    most = (cell.estimated_forward + cell.estimated_backward) * (slot.unit.stop - slot.unit.start)
    return min(slot.passes / most, 1.0) if most else 0.0
