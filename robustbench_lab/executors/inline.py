"""Everything in this process, one unit after another: for one device, and for debugging."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from robustbench_lab.evaluation.evaluate_cell import evaluate_unit
from robustbench_lab.evaluation.workbench import Workbench
from robustbench_lab.executors import ExecutionContext, UnitQueue
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import UnitRecord, WorkUnit
from robustbench_lab.run_observer import UnitProgress

PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class InlineExecutor:
    """Runs units on the first of the context's slots."""

    name: str = "inline"

    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        """One record after another, in the order of the queue."""
        slot = context.slots[0]
        bench = Workbench(context.catalog, torch.device(slot.device))
        while unit := queue.take(slot):
            for observer in context.observers:
                observer.unit_started(unit, slot)
            options = replace(context.options, batch_limit=context.batches.limit(unit.cell, slot.kind))
            record = evaluate_unit(unit, bench, options, _Reporter(unit, slot, context))
            context.batches.learn(unit.cell, record, slot.kind)
            for observer in context.observers:
                observer.unit_finished(record, slot)
            yield record


class _Reporter:
    """Passes progress on, a few times a second."""

    def __init__(self, unit: WorkUnit, slot: Slot, context: ExecutionContext) -> None:
        self._unit = unit
        self._slot = slot
        self._observers = context.observers
        self._last = 0.0

    def __call__(self, unbroken: int, forward_passes: int, backward_passes: int) -> None:
        now = time.monotonic()
        if now - self._last < PROGRESS_SECONDS:
            return
        self._last = now
        samples = self._unit.stop - self._unit.start
        progress = UnitProgress(self._unit, self._slot, samples, unbroken, forward_passes, backward_passes)
        for observer in self._observers:
            observer.unit_progressed(progress)
