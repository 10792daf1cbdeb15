"""The contract test of executors finds the usual mistakes, and nothing in what is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.plugin_loading import load_plugins
from robustbench_lab.executors import ExecutionContext, Executor, UnitQueue
from robustbench_lab.executors.inline import InlineExecutor
from robustbench_lab.executors.local import LocalExecutor
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import UnitRecord
from robustbench_lab.testing.executor_contract import check_executor

CATALOG = Catalog.from_plugins(load_plugins())


class Wrong:
    """As `inline`, but for what a test changes."""

    name = "wrong"

    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        return InlineExecutor().run(queue, context)


class Loses(Wrong):
    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        next(records := super().run(queue, context))
        yield from records


class Repeats(Wrong):
    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        for record in super().run(queue, context):
            yield from (record, record)


class Swallows(Wrong):
    """Errors of units."""

    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        for record in super().run(queue, context):
            yield replace(record, reason=None)


class Betters(Wrong):
    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        for record in super().run(queue, context):
            if record.outcomes is None:
                yield record
            else:
                robust = np.ones_like(record.outcomes.robust)
                yield replace(record, outcomes=replace(record.outcomes, clean_correct=robust, robust=robust))


class IsSilent(Wrong):
    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        return super().run(queue, replace(context, observers=()))


class RunsOnce(Wrong):
    ran = False

    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        if self.ran:
            raise RuntimeError("the pool is closed")
        self.ran = True
        return super().run(queue, context)


class MakesUpSlots(Wrong):
    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        return super().run(queue, replace(context, slots=(Slot("mine", "cpu", 1),)))


class YieldsUnits(Wrong):
    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        while unit := queue.take(context.slots[0]):
            yield unit  # type: ignore[misc]


@pytest.mark.parametrize("executor", [InlineExecutor(), LocalExecutor()], ids=lambda executor: executor.name)
def test_the_executors_that_ship_have_nothing_wrong(executor: Executor) -> None:
    assert check_executor(executor, CATALOG) == []


@pytest.mark.parametrize(
    ("executor", "said"),
    [
        (Loses(), "it loses 1 of 3 units"),
        (Repeats(), "it yields more records than it was given units"),
        (Swallows(), "a unit that cannot be evaluated must give a record that says why"),
        (Betters(), "its outcomes are not those of the units"),
        (IsSilent(), "it does not tell the observers once"),
        (RunsOnce(), "called again, it stops with RuntimeError: the pool is closed"),
        (MakesUpSlots(), "it tells the observers of slots that are not in its context"),
        (YieldsUnits(), "it yields WorkUnit, which is no UnitRecord"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_usual_mistakes_are_named(executor: Executor, said: str) -> None:
    assert check_executor(executor, CATALOG)[0].startswith(said)
