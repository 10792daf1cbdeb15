"""Stage 3: the cells that are not stored yet to work units, and their records into the store as they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from robustbench_lab.attack_checkpoint import checkpoint_path, remove_checkpoint
from robustbench_lab.evaluate_cell import Metric, close_cell
from robustbench_lab.executors import ExecutionContext, Executor
from robustbench_lab.records import Cell, Status, UnitRecord, WorkUnit
from robustbench_lab.result_store import ResultStore
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.run_plan import RunPlan

UNIT_SAMPLES = 1000
"""Samples of one work unit. Enough to keep batches full as samples drop out; what a killed run loses at most."""


@dataclass(frozen=True)
class Scope:
    """Which stored cells are evaluated all the same."""

    fresh: bool = False
    retry_failed: bool = False


@dataclass
class Schedule:
    """Evaluates a plan's cells and stores each as it ends."""

    store: ResultStore
    executor: Executor
    context: ExecutionContext
    metrics: dict[str, dict[str, Metric]]
    """Task to metric name to metric."""
    _open: dict[str, list[UnitRecord]] = field(default_factory=dict)

    def run(self, run_id: str, plan: RunPlan, scope: Scope) -> None:
        """Evaluate what is not stored. Whatever ends this early, finished units and cells are kept."""
        to_do = cells_to_do(plan.cells, self.store, scope)
        for observer in self.context.observers:
            observer.run_started(run_id, to_do, len(plan.cells) - len(to_do))
        units = self._units(to_do, run_id, scope)
        cells = {cell.cell_id: cell for cell in to_do}
        still_needed = (unit for unit in units if unit.cell.cell_id in self._open)
        for record in self.executor.run(still_needed, self.context):
            self._take(record, cells[record.cell_id], run_id)
            if folder := self.context.options.checkpoints:
                remove_checkpoint(checkpoint_path(folder, record.cell_id, record.start, record.stop))

    def _units(self, cells: Iterable[Cell], run_id: str, scope: Scope) -> list[WorkUnit]:
        """The units still missing, those of one model and dataset side by side; cells complete already are closed."""
        units = []
        for cell in sorted(cells, key=lambda one: (one.model.identity, one.dataset.identity, one.defense.identity)):
            slices = {(unit.start, unit.stop): unit for unit in self._cut(cell)}
            stored = [] if scope.fresh else self.store.units(cell.cell_id)
            # Units of another size, kept by another version, do not fit between these.
            self._open[cell.cell_id] = [record for record in stored if (record.start, record.stop) in slices]
            for record in self._open[cell.cell_id]:
                del slices[record.start, record.stop]
            missing = list(slices.values())
            units += missing
            if not missing:
                self._close(cell, run_id)
        return units

    def _cut(self, cell: Cell) -> list[WorkUnit]:
        """A cell's units: one, where the attack looks at all samples together."""
        if self.context.catalog.find("attacks", cell.attack.name).spec.joint:
            return [WorkUnit(cell, 0, len(cell.samples.sample_ids))]
        return cut_units(cell)

    def _take(self, record: UnitRecord, cell: Cell, run_id: str) -> None:
        """Keep a unit's record. The cell closes with its last unit, or with the first that is not ok."""
        records = self._open.get(cell.cell_id)
        if records is None:
            return
        records.append(record)
        complete = sum(one.stop - one.start for one in records) == len(cell.samples.sample_ids)
        if complete or record.status is not Status.OK:
            self._close(cell, run_id)
        else:
            self.store.save_unit(record, run_id)

    def _close(self, cell: Cell, run_id: str) -> None:
        units = sorted(self._open.pop(cell.cell_id), key=lambda record: record.start)
        record = close_cell(cell, units, self.metrics.get(cell.task, {}), self.executor.name)
        self.store.save_cell(record, run_id, artifacts=[unit.artifact for unit in units if unit.artifact])
        for observer in self.context.observers:
            observer.cell_finished(record)


def cells_to_do(cells: Sequence[Cell], store: ResultStore, scope: Scope) -> list[Cell]:
    """The cells without a stored result, in the plan's order; with `fresh` all, each replaced as its new one ends."""
    if scope.fresh:
        return list(cells)
    stored = store.stored_statuses([cell.cell_id for cell in cells])
    again = {cell_id for cell_id, status in stored.items() if scope.retry_failed and status is Status.FAILED}
    return [cell for cell in cells if cell.cell_id not in stored or cell.cell_id in again]


def cut_units(cell: Cell, size: int = UNIT_SAMPLES) -> list[WorkUnit]:
    """A cell's samples in slices of `size`."""
    count = len(cell.samples.sample_ids)
    return [WorkUnit(cell, start, min(start + size, count)) for start in range(0, count, size)]


def notify_finished(observers: Sequence[RunObserver], *, interrupted: bool) -> None:
    """Tell all observers that nothing more follows."""
    for observer in observers:
        observer.run_finished(interrupted)
