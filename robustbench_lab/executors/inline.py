"""Everything in this process, one unit after another: for one device, and for debugging."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from robustbench_lab.evaluate_cell import evaluate_unit
from robustbench_lab.executors import ExecutionContext
from robustbench_lab.records import UnitRecord, WorkUnit
from robustbench_lab.run_observer import UnitProgress
from robustbench_lab.workbench import Workbench

PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class InlineExecutor:
    """Runs units on the first of the context's devices."""

    name: str = "inline"

    def run(self, units: Iterable[WorkUnit], context: ExecutionContext) -> Iterator[UnitRecord]:
        """One record after another, in the order of the units."""
        bench = Workbench(context.catalog, torch.device(context.devices[0]))
        for unit in units:
            for observer in context.observers:
                observer.unit_started(unit, str(bench.device))
            yield evaluate_unit(unit, bench, context.options, _Reporter(unit, context))


class _Reporter:
    """Passes progress on, a few times a second."""

    def __init__(self, unit: WorkUnit, context: ExecutionContext) -> None:
        self._unit = unit
        self._observers = context.observers
        self._last = 0.0

    def __call__(self, unbroken: int, forward_passes: int, backward_passes: int) -> None:
        now = time.monotonic()
        if now - self._last < PROGRESS_SECONDS:
            return
        self._last = now
        samples = self._unit.stop - self._unit.start
        progress = UnitProgress(self._unit, samples, unbroken, forward_passes, backward_passes)
        for observer in self._observers:
            observer.unit_progressed(progress)
