"""A run on slots that do nothing: a clock that jumps from one end of a unit to the next, and made-up costs."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from robustbench_lab.executors import UnitQueue
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Status, UnitRecord, WorkUnit


@dataclass
class FakeClock:
    """Seconds since the run began."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Simulation:
    """What happened."""

    seconds: float = 0.0
    """Until the last unit had ended."""
    given: list[tuple[Slot, WorkUnit]] = field(default_factory=list)
    """In the order of their beginning."""
    loads: int = 0
    """How often a slot had to load another model or dataset."""


def simulate(
    queue: UnitQueue,
    slots: Sequence[Slot],
    seconds: Callable[[WorkUnit], float],
    *,
    clock: FakeClock,
    loading_seconds: float = 0.0,
    ended: Callable[[WorkUnit, UnitRecord], None] = lambda _unit, _record: None,
) -> Simulation:
    """Run the queue empty. seconds: what a unit really takes; loading another model or dataset comes on top."""
    made = Simulation()
    idle = list(range(len(slots)))
    running: list[tuple[float, int, WorkUnit, UnitRecord]] = []
    loaded: dict[int, tuple[str, str]] = {}
    while True:
        for index in list(idle):
            unit = queue.take(slots[index])
            if unit is None:
                continue
            idle.remove(index)
            needed = (unit.cell.model.identity, unit.cell.dataset.identity)
            loads = loaded.get(index) != needed
            loaded[index] = needed
            made.loads += loads
            made.given.append((slots[index], unit))
            took = seconds(unit) + loading_seconds * loads
            heapq.heappush(running, (clock.now + took, index, unit, simulated_record(unit, slots[index], took)))
        if not running:
            made.seconds = clock.now
            return made
        clock.now, index, unit, record = heapq.heappop(running)
        idle.append(index)
        ended(unit, record)


def simulated_record(
    unit: WorkUnit, slot: Slot, seconds: float, *, status: Status = Status.OK, memory_share: float = 0.0
) -> UnitRecord:
    """Of a unit that ended, without outcomes."""
    passes = unit.cell.estimated_forward * (unit.stop - unit.start)
    return UnitRecord(
        cell_id=unit.cell.cell_id,
        start=unit.start,
        stop=unit.stop,
        status=status,
        reason=None if status is Status.OK else "made up",
        outcomes=None,
        forward_passes=passes,
        backward_passes=0,
        wall_seconds=seconds,
        findings=(),
        device=slot.device,
        batch_size=1,
        memory_share=memory_share,
    )
