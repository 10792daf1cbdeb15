"""What an executor must keep to, checked on units whose records are known. Shipped for authors of plugins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.errors import describe_error
from robustbench_lab.evaluation.evaluate_cell import EvaluationOptions, evaluate_unit
from robustbench_lab.evaluation.workbench import Workbench
from robustbench_lab.executors import ExecutionContext, Executor, FindsSlots
from robustbench_lab.hardware.device_slots import Slot, SlotRequest, make_slots
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import make_plan
from robustbench_lab.records import Status, UnitRecord, WorkUnit
from robustbench_lab.run_observer import RunObserver

SAMPLES, UNITS = 24, 3
SLOTS = 2

Slice = tuple[str, int, int]
"""What a unit and its record have in common."""


def check_executor(executor: Executor, catalog: Catalog) -> list[str]:
    """What is wrong with an executor, a line each; nothing where it keeps to the contract.

    It evaluates units of a bundled model on CPUs, among them one whose model does not exist, and is then called again.
    One that never ends is not found out.
    """
    units = _units(catalog)
    wrong: list[str] = []
    for turn, part in (("", units[:-1]), ("called again, ", units[-1:])):
        queue, heard = _Queue(part), _Heard()
        try:
            slots = _slots(executor)
            context = ExecutionContext(catalog, slots, EvaluationOptions(), (heard,))
            records = list(executor.run(queue, context))
        except Exception as error:
            return [*wrong, f"{turn}it stops with {describe_error(error)}"]
        found = [*_wrong_records(records, queue, catalog), *heard.wrong(queue, slots)]
        wrong += [turn + one for one in found]
    return wrong


def _slots(executor: Executor) -> tuple[Slot, ...]:
    if isinstance(executor, FindsSlots):
        return executor.find_slots(SlotRequest(devices=("cpu",), threads_per_worker=1))
    return make_slots(["cpu"], workers=SLOTS, threads_per_worker=1)


class _Queue:
    """Gives out every unit once, to whatever slot asks."""

    def __init__(self, units: Sequence[WorkUnit]) -> None:
        self._left = list(units)
        self.units = tuple(units)

    def take(self, slot: Slot) -> WorkUnit | None:  # noqa: ARG002 (the queue's)
        return self._left.pop(0) if self._left else None


class _Heard(RunObserver):
    """What the executor says of its units."""

    def __init__(self) -> None:
        self.begun: Counter[Slice] = Counter()
        self.ended: Counter[Slice] = Counter()
        self.slots: set[Slot] = set()

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:
        self.begun[_slice(unit)] += 1
        self.slots.add(slot)

    def unit_finished(self, record: UnitRecord, slot: Slot) -> None:
        self.ended[_slice(record)] += 1
        self.slots.add(slot)

    def wrong(self, queue: _Queue, slots: Sequence[Slot]) -> list[str]:
        told = {_slice(unit): 1 for unit in queue.units}
        wrong = []
        if self.begun != told or self.ended != told:
            wrong.append("it does not tell the observers once of each unit that begins and ends")
        if self.slots - set(slots):
            wrong.append("it tells the observers of slots that are not in its context")
        return wrong


def _units(catalog: Catalog) -> list[WorkUnit]:
    spec = ExperimentSpec.from_flags(models=["digits-cnn"], attacks=[Component("fgsm")], samples=SAMPLES)
    (cell,) = make_plan(spec, catalog).cells
    nowhere = replace(cell.model, name="no-such-model", label="no-such-model", identity="0" * 64)
    lost = replace(cell, cell_id="0" * 16, model=nowhere)
    size = SAMPLES // UNITS
    whole = [WorkUnit(cell, start, start + size) for start in range(0, SAMPLES, size)]
    return [whole[0], WorkUnit(lost, 0, size), *whole[1:]]


def _wrong_records(records: Sequence[object], queue: _Queue, catalog: Catalog) -> list[str]:
    if strangers := [one for one in records if not isinstance(one, UnitRecord)]:
        return [f"it yields {type(strangers[0]).__name__}, which is no UnitRecord"]
    known = [one for one in records if isinstance(one, UnitRecord)]
    yielded, given = Counter(map(_slice, known)), Counter(map(_slice, queue.units))
    if lost := (given - yielded).total():
        return [f"it loses {lost} of {given.total()} units: yield a record for each"]
    if yielded != given:
        return ["it yields more records than it was given units"]
    bench = Workbench(catalog, torch.device("cpu"))
    by_slice = {_slice(record): record for record in known}
    expected = [evaluate_unit(unit, bench, EvaluationOptions(), lambda *_: None) for unit in queue.units]
    return sorted({text for one in expected if (text := _difference(by_slice[_slice(one)], one))})


def _difference(record: UnitRecord, expected: UnitRecord) -> str | None:
    if expected.status is not Status.OK:
        silent = record.status is expected.status and record.reason
        return None if silent else "a unit that cannot be evaluated must give a record that says why"
    if record.outcomes is None or expected.outcomes is None:
        return f"a unit that can be evaluated is {record.status.value}: {record.reason}"
    same = np.array_equal(record.outcomes.robust, expected.outcomes.robust)
    return None if same else "its outcomes are not those of the units: hand their records on as they are"


def _slice(one: WorkUnit | UnitRecord) -> Slice:
    return (one.cell.cell_id if isinstance(one, WorkUnit) else one.cell_id), one.start, one.stop
