"""Stage 3: the cells that are not stored yet to work units, and their records into the store as they arrive."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from robustbench_lab.catalog import Catalog
from robustbench_lab.errors import PluginError
from robustbench_lab.evaluation.evaluate_cell import close_cell
from robustbench_lab.evaluation.metric_values import Metric
from robustbench_lab.executors import ExecutionContext, Executor
from robustbench_lab.planning.run_plan import RunPlan
from robustbench_lab.problem_parts.attack_checkpoint import (
    checkpoint_path,
    kept_slices,
    remove_checkpoint,
    remove_checkpoints,
)
from robustbench_lab.records import CANCELLED, Cell, Status, UnitRecord, WorkUnit
from robustbench_lab.result_store import CellTiming, ResultStore
from robustbench_lab.result_store.claims import Claim
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.scheduling.cutting import Range, UnitSize, cut, cut_on_grid, disjoint, gaps
from robustbench_lab.scheduling.dispatch import Order
from robustbench_lab.scheduling.pass_watch import PassWatch
from robustbench_lab.scheduling.pending_units import Limits, PendingUnits
from robustbench_lab.scheduling.unit_costs import UnitCosts
from robustbench_lab.tracking.run_tracker import RunTracker

WAIT_SECONDS = 0.5
"""Between two looks at what other runs have done."""
RECUT_FROM = 2.0
"""Times the samples that a unit should have, by what is known now, before it is cut again."""


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
    """Task to metric name to metric, which may raise."""
    order: Order = Order.COST
    limits: Limits = field(default_factory=Limits)
    tracker: RunTracker | None = None
    """Is told what cells are expected to cost."""
    claim: Callable[[str], Claim] = lambda _cell_id: Claim.OURS
    """What other runs on the same database do with a cell: `ResultStore.claiming`."""
    _open: dict[str, list[UnitRecord]] = field(default_factory=dict)
    _pending: PendingUnits | None = None
    _stop_asked: str | None = None
    _surprises: int = 0
    """What costs had learned when units were last cut."""
    _cancelled: set[str] = field(default_factory=set)
    _scope: Scope = field(default_factory=Scope)

    def run(self, run_id: str, plan: RunPlan, scope: Scope) -> None:
        """Evaluate what is not stored. Whatever ends this early, finished units and cells are kept."""
        self._scope = scope
        to_do = cells_to_do(plan.cells, self.store, scope)
        for observer in self.context.observers:
            observer.run_started(run_id, to_do, len(plan.cells) - len(to_do))
        for observer in self.context.observers:
            observer.slots_known(self.context.slots)
        costs = UnitCosts(self.context.slots[0].kind, plan.input_values)
        costs.learn(like_timings(self.store, to_do))
        if self.tracker:
            self.tracker.price = costs.seconds_per_sample
        share = _Share(costs, plan.sample_bytes, len(self.context.slots), tuple(to_do))
        units = self._units(to_do, share, run_id)
        pending = PendingUnits(units, self.context.slots, costs, self.order, self.limits, self._tell_stopping)
        self._pending = pending
        if self._stop_asked:
            pending.stop(self._stop_asked)
        cells = {cell.cell_id: cell for cell in to_do}
        pending.cancelled = lambda cell_id: self._leave_out(cells[cell_id], run_id)
        if not scope.fresh:
            pending.claim = self.claim
        pending.stored_elsewhere = self._take_from_store
        pending.inherited = lambda cell_id: self._units([cells[cell_id]], share, run_id)
        pending.recut = lambda left: self._recut(left, share)
        context = self._watched(pending)
        self._evaluate(pending, context, cells, run_id)
        while self._wait_for_others(pending):
            self._evaluate(pending, context, cells, run_id)
        if self._open and not pending.stopped:
            lost = f"{len(self._open)} of {len(to_do)} cells unfinished"
            raise PluginError(
                f"executor '{self.executor.name}' ended with {lost}: it must yield a record for each unit"
            )

    def _watched(self, pending: PendingUnits) -> ExecutionContext:
        """The context, with somebody who measures the passes of models that are new."""
        watch = PassWatch(pending.costs, pending.reprice)
        return replace(self.context, observers=(*self.context.observers, watch))

    def _evaluate(
        self, pending: PendingUnits, context: ExecutionContext, cells: Mapping[str, Cell], run_id: str
    ) -> None:
        for record in self.executor.run(pending, context):
            if not (isinstance(record, UnitRecord) and record.cell_id in cells):
                raise PluginError(f"executor '{self.executor.name}' handed in what is no record of a unit of this run")
            if pending.ended(cells[record.cell_id], record):
                self._take(record, cells[record.cell_id], run_id)

    def _wait_for_others(self, pending: PendingUnits) -> bool:
        """Until no cell is left that another run evaluates, or one of them is free again: whether that is so."""
        told = 0
        while count := pending.waits_for():
            if count != told:
                told = count
                for observer in self.context.observers:
                    observer.run_waiting(count)
            time.sleep(WAIT_SECONDS)
        return told > 0 and pending.has_units()

    def stop(self, reason: str) -> None:
        """Begin no more units; what runs is finished. May be called by a signal handler, at any time."""
        self._stop_asked = reason
        if self._pending is not None:
            self._pending.stop(reason)

    def cancel(self, cell: str | None) -> int | None:
        """Leave out what has not begun of the cells whose ids begin with `cell`; None: stop the whole run.

        Another thread may call it. Returns how many cells it concerns; None while that is not known yet.
        """
        if self._pending is None:
            return None
        found = [cell_id for cell_id in list(self._open) if cell_id.startswith(cell or "")]
        if cell is None:
            self.stop(CANCELLED)
        else:
            self._pending.cancel(found)
        return len(found)

    @property
    def stopped(self) -> str | None:
        """Why units were left, where that was asked for."""
        return self._pending.stopped if self._pending else None

    # ------------------------------------------------------------ cells to units

    def _units(self, cells: Sequence[Cell], share: _Share, run_id: str) -> list[WorkUnit]:
        """The units still missing; cells complete already are closed."""
        stored = {} if self._scope.fresh else self.store.open_units([cell.cell_id for cell in cells])
        checkpointed = kept_slices(self.context.options.checkpoints) if self.context.options.resume else {}
        units = []
        for cell in cells:
            missing = self._missing(cell, stored.get(cell.cell_id, []), checkpointed.get(cell.cell_id, []), share)
            units += missing
            if not missing:
                self._close(cell, run_id)
        return units

    def _missing(
        self, cell: Cell, stored: Sequence[UnitRecord], checkpointed: Sequence[Range], share: _Share
    ) -> list[WorkUnit]:
        """What stored units leave of a cell, as units. An attack that has left a checkpoint goes on with its slice."""
        count = len(cell.samples.sample_ids)
        if grid := self._grid(cell, share.size(cell)):
            known = {(record.start, record.stop): record for record in stored}
            self._open[cell.cell_id] = [known[one.start, one.stop] for one in grid if (one.start, one.stop) in known]
            return [one for one in grid if (one.start, one.stop) not in known]
        kept = disjoint(((record.start, record.stop) for record in stored), [(0, count)])
        self._open[cell.cell_id] = [record for record in stored if (record.start, record.stop) in kept]
        begun = disjoint(checkpointed, gaps(count, kept))
        return [WorkUnit(cell, *one) for one in begun] + cut(cell, gaps(count, sorted(kept + begun)), share.fair(cell))

    def _recut(self, left: Sequence[WorkUnit], share: _Share) -> list[WorkUnit]:
        """Units that turn out to be too long, in pieces; all others as they are."""
        if share.costs.surprises == self._surprises:
            return list(left)
        self._surprises = share.costs.surprises
        share = replace(share)  # expects of the run what is known by now
        return [piece for unit in left for piece in self._pieces(unit, share)]

    def _pieces(self, unit: WorkUnit, share: _Share) -> list[WorkUnit]:
        size = share.fair(unit.cell)
        if unit.stop - unit.start <= RECUT_FROM * size or self._stays_whole(unit, share):
            return [unit]
        return cut(unit.cell, [(unit.start, unit.stop)], size)

    def _stays_whole(self, unit: WorkUnit, share: _Share) -> bool:
        folder = self.context.options.checkpoints
        begun = folder is not None and checkpoint_path(folder, unit.cell.cell_id, unit.start, unit.stop).exists()
        return begun or bool(self._grid(unit.cell, share.size(unit.cell)))

    def _grid(self, cell: Cell, size: UnitSize) -> list[WorkUnit]:
        """The units of a cell whose numbers depend on how it is cut: always the same. Empty for all other cells."""
        catalog = self.context.catalog
        if is_whole(cell, catalog):
            return [WorkUnit(cell, 0, len(cell.samples.sample_ids))]
        attack = catalog.find("attacks", cell.attack.name, cell.task).spec
        randomized = catalog.find("defenses", cell.defense.name, cell.task).spec.randomized
        depends = attack.compares_samples or randomized or not attack.sample_deterministic
        return cut_on_grid(cell, size.fixed()) if depends else []

    # ------------------------------------------------------------ records to the store

    def _take(self, record: UnitRecord, cell: Cell, run_id: str) -> None:
        """Keep a unit's record. The cell closes with its last unit, or with the first that is not ok."""
        records = self._open.get(cell.cell_id)
        if records is None:
            return
        if any(one.start < record.stop and record.start < one.stop for one in records):
            unit = f"{record.start}..{record.stop} of cell {cell.cell_id}"
            raise PluginError(f"executor '{self.executor.name}' handed in unit {unit} twice")
        records.append(record)
        folder = self.context.options.checkpoints
        if cell.cell_id in self._cancelled and _covered(records) < len(cell.samples.sample_ids):
            records.append(_cancelled_unit(cell, record.device))
        if record.status is not Status.OK or _covered(records) == len(cell.samples.sample_ids):
            self._close(cell, run_id)
            if folder:
                self.store.when_stored(lambda: remove_checkpoints(folder, cell.cell_id))
            return
        self.store.save_unit(record, run_id)
        if folder:
            checkpoint = checkpoint_path(folder, record.cell_id, record.start, record.stop)
            self.store.when_stored(lambda: remove_checkpoint(checkpoint))

    def _take_from_store(self, cell_id: str) -> None:
        """Another run has closed the cell."""
        if self._open.pop(cell_id, None) is None:
            return
        for record in self.store.cells(ids=[cell_id], with_outcomes=False):
            for observer in self.context.observers:
                observer.cell_found(record)

    def _leave_out(self, cell: Cell, run_id: str) -> None:
        """Close a cancelled cell; where a unit of it runs, when that has ended."""
        self._cancelled.add(cell.cell_id)
        if self._pending and not self._pending.runs(cell.cell_id):
            self._open[cell.cell_id].append(_cancelled_unit(cell, self.context.slots[0].device))
            self._close(cell, run_id)

    def _close(self, cell: Cell, run_id: str) -> None:
        units = sorted(self._open.pop(cell.cell_id), key=lambda record: record.start)
        if self._pending and _covered(units) < len(cell.samples.sample_ids):
            self._pending.drop(cell.cell_id)
        record = close_cell(cell, units, self.metrics.get(cell.task, {}), self.executor.name)
        artifacts = [unit.artifact for unit in units if unit.artifact]
        self.store.save_cell(record, run_id, artifacts, keeps_ok=not self._scope.fresh)
        for observer in self.context.observers:
            observer.cell_finished(record)

    def _tell_stopping(self, reason: str) -> None:
        for observer in self.context.observers:
            observer.run_stopping(reason)


@dataclass(frozen=True)
class _Share:
    """What decides how large a unit is."""

    costs: UnitCosts
    sample_bytes: Mapping[str, int]
    """Dataset's identity to the bytes of a sample."""
    slots: int
    cells: tuple[Cell, ...]
    """Of the run."""

    @cached_property
    def run_seconds(self) -> float:
        """Expected of all cells together, on one slot, when it was first asked for."""
        return sum(self.costs.seconds(WorkUnit(cell, 0, len(cell.samples.sample_ids))) for cell in self.cells)

    def size(self, cell: Cell) -> UnitSize:
        return UnitSize(self.sample_bytes.get(cell.dataset.identity, 0))

    def fair(self, cell: Cell) -> int:
        """Samples a unit."""
        return self.size(cell).fair(self.costs.seconds_per_sample(cell), self.run_seconds, self.slots)


def _cancelled_unit(cell: Cell, device: str) -> UnitRecord:
    """In place of the units that were left out: it decides how the cell ends."""
    return UnitRecord(
        cell_id=cell.cell_id,
        start=0,
        stop=len(cell.samples.sample_ids),
        status=Status.SKIPPED,
        reason=CANCELLED,
        outcomes=None,
        forward_passes=0,
        backward_passes=0,
        wall_seconds=0.0,
        findings=(),
        device=device,
        batch_size=0,
    )


def _covered(units: Iterable[UnitRecord]) -> int:
    """How many samples."""
    return sum(one.stop - one.start for one in units)


def cells_to_do(cells: Sequence[Cell], store: ResultStore, scope: Scope) -> list[Cell]:
    """The cells without a stored result, in the plan's order; with `fresh` all, each replaced as its new one ends."""
    if scope.fresh:
        return list(cells)
    ids = [cell.cell_id for cell in cells]
    stored = store.stored_statuses(ids).keys()
    again = store.failed_or_cancelled(ids) if scope.retry_failed else set()
    return [cell for cell in cells if cell.cell_id not in stored or cell.cell_id in again]


def like_timings(store: ResultStore, cells: Sequence[Cell]) -> list[CellTiming]:
    """What stored cells of the same models took; where there are none, those of all models."""
    return store.timings({cell.model.label for cell in cells}) or (store.timings() if cells else [])


def is_whole(cell: Cell, catalog: Catalog) -> bool:
    """Whether a cell is never cut: its attack looks at all samples together, or one change counts for all of them."""
    attack = catalog.find("attacks", cell.attack.name, cell.task).spec
    threat_model = catalog.find("threat_models", cell.threat_model.name, cell.task).spec
    return bool(attack.joint or threat_model.shared)


def notify_finished(observers: Iterable[RunObserver], *, interrupted: bool) -> None:
    """Tell all observers that nothing more follows."""
    for observer in observers:
        observer.run_finished(interrupted)
