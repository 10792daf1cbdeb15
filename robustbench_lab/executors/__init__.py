"""Where work units are evaluated: one interface, any number of places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from robustbench_lab.catalog import Catalog
from robustbench_lab.errors import UsageError
from robustbench_lab.evaluation.evaluate_cell import EvaluationOptions
from robustbench_lab.executors.batch_memory import BatchMemory
from robustbench_lab.hardware.device_slots import Slot, SlotRequest
from robustbench_lab.records import UnitRecord, WorkUnit
from robustbench_lab.run_observer import RunObserver


@dataclass(frozen=True)
class ExecutionContext:
    """What an executor needs beside the units."""

    catalog: Catalog
    """A worker loads the same plugins from `catalog.files`."""
    slots: tuple[Slot, ...]
    options: EvaluationOptions
    observers: Sequence[RunObserver]
    unit_timeout: float | None = None
    """Seconds that a unit may take; None: any time. `inline`, which can stop nothing, is never given one."""
    batches: BatchMemory = field(default_factory=BatchMemory)
    """What worked where memory ran out. An executor asks it before each unit, and tells it of each record."""


LEAST_SILENCE = 2.0
"""Seconds. A worker gives a sign of life every second."""


def check_silence(seconds: float) -> None:
    """Raise UsageError for a silence after which a worker that is well would count as hung."""
    if not LEAST_SILENCE <= seconds < math.inf:
        raise UsageError(f"silence must be a number of seconds from {LEAST_SILENCE:g} on, not {seconds:g}")


class UnitQueue(Protocol):
    """The units still to evaluate."""

    def take(self, slot: Slot) -> WorkUnit | None:
        """The next unit for a free slot, given out once; None: nothing for it now.

        Ask again when a unit has ended; the run is over when no unit runs and there is none for any slot.
        """
        ...


class Executor(Protocol):
    """Evaluates work units and hands their records back as they end."""

    @property
    def name(self) -> str: ...

    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        """One record for each unit taken, in any order. A unit that fails gives a record that says so.

        It tells the observers of the units: started, progressed, retried, finished. Called again, with the same queue,
        where units are left that other runs on the same database had claimed and let go.
        """
        ...


@runtime_checkable
class FindsSlots(Protocol):
    """An executor whose slots are not this machine's."""

    def find_slots(self, wanted: SlotRequest) -> tuple[Slot, ...]:
        """The slots of its `ExecutionContext`. Called once, before `run`; raises UsageError where there are none."""
        ...
