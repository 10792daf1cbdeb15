"""The stages, in order: spec -> plan -> schedule -> evaluate cell -> store -> leaderboard -> report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.plugin_loading import load_plugins
from robustbench_lab.errors import UsageError
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import RunPlan, make_plan
from robustbench_lab.provenance import environment
from robustbench_lab.ranking.leaderboard import Leaderboard, LeaderboardDefinition
from robustbench_lab.ranking.stored_leaderboard import cell_metrics, keep_new_rows, rank
from robustbench_lab.records import CANCELLED, CellRecord
from robustbench_lab.result_store import ResultStore, batches_file, checkpoints_folder, open_store
from robustbench_lab.run_observer import GuardedObserver, RunObserver
from robustbench_lab.scheduling.executor_choice import choose_executor
from robustbench_lab.scheduling.interruption import REASON as INTERRUPTED
from robustbench_lab.scheduling.interruption import stops_gently
from robustbench_lab.tracking.run_heartbeat import Heartbeat
from robustbench_lab.tracking.run_state import RunState
from robustbench_lab.tracking.run_tracker import RunTracker

if TYPE_CHECKING:
    from robustbench_lab.executors import ExecutionContext, Executor
    from robustbench_lab.hardware.device_slots import Slot
    from robustbench_lab.scheduling.scheduler import Schedule


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind, beside the database."""

    run_id: str
    plan: RunPlan
    records: tuple[CellRecord, ...]
    """One for each finished cell of the plan, in its order; fewer where the run was interrupted."""
    interrupted: bool
    stopped: str | None
    """Why cells were left although nothing was wrong: Ctrl-C, --max-hours, --max-cells."""
    state: RunState
    """What the run did, and on which slots."""
    leaderboard: Leaderboard

    @property
    def computed(self) -> int:
        """How many cells this run evaluated; the others were stored already."""
        return self.state.done


def open_catalog(files: Sequence[str] = (), extra: Sequence[tuple[str, object]] = ()) -> Catalog:
    """All plugins there are: installed ones, single files, and live objects (name, plugin)."""
    return Catalog.from_plugins(load_plugins(files, extra))


def run_experiment(
    spec: ExperimentSpec,
    catalog: Catalog,
    *,
    observers: Sequence[RunObserver] = (),
    command: Sequence[str] = (),
    tracker: RunTracker | None = None,
    only: Collection[str] | None = None,
) -> RunResult:
    """Run every stage. On Ctrl-C what is finished is kept, and the result says that it was interrupted.

    tracker: one that the caller reads while the run goes on. only: ids of the cells to which the plan is narrowed.
    """
    plan = make_plan(spec, catalog)
    if only is not None:
        plan = _narrowed(plan, only)
    tracker = tracker or RunTracker()
    guarded = [GuardedObserver(observer) for observer in (*catalog.observers(), *observers)]
    executor, slots = choose_executor(spec, plan, catalog)
    context = _context(spec, catalog, slots, [tracker, *guarded])
    # Opened last: a request that is refused leaves no new database behind.
    with open_store(spec.database, artifacts_folder=spec.artifacts) as store:
        schedule = _schedule(store, executor, context, spec, tracker)
        run_id = store.begin_run(command, spec.to_json(), environment())
        with (
            store.claiming(run_id, replaces_failed=spec.retry_failed) as schedule.claim,
            Heartbeat(store.board, run_id, tracker, schedule.cancel),
            store.batched(),
        ):
            interrupted = _evaluate(schedule, run_id, plan, spec)
        store.finish_run(run_id, "interrupted" if interrupted else "finished")
        records = store.cells(ids=[cell.cell_id for cell in plan.cells])
        if not interrupted:
            keep_new_rows(store, catalog, sorted({cell.task for cell in plan.cells}))
    leaderboard = rank(records, LeaderboardDefinition(), catalog)
    return RunResult(run_id, plan, tuple(records), interrupted, schedule.stopped, tracker.state(), leaderboard)


def _narrowed(plan: RunPlan, only: Collection[str]) -> RunPlan:
    cells = tuple(cell for cell in plan.cells if cell.cell_id in only)
    if not cells:
        raise UsageError(
            "those cells are not what the settings give today, since a component has changed: use `rbl run`"
        )
    return replace(plan, cells=cells)


def _context(
    spec: ExperimentSpec, catalog: Catalog, slots: tuple[Slot, ...], observers: Sequence[RunObserver]
) -> ExecutionContext:
    from robustbench_lab.evaluation.evaluate_cell import EvaluationOptions
    from robustbench_lab.executors import ExecutionContext
    from robustbench_lab.executors.batch_memory import BatchMemory

    return ExecutionContext(
        catalog=catalog,
        slots=slots,
        options=EvaluationOptions(
            batch_size=spec.batch_size,
            save_adversarials=spec.save_adversarials,
            mixed_precision=spec.precision == "mixed",
            checkpoints=checkpoints_folder(spec.database),
            resume=not spec.fresh,
        ),
        observers=tuple(observers),
        unit_timeout=spec.unit_timeout,
        batches=BatchMemory(batches_file(spec.database)),
    )


def _schedule(
    store: ResultStore, executor: Executor, context: ExecutionContext, spec: ExperimentSpec, tracker: RunTracker
) -> Schedule:
    from robustbench_lab.scheduling.dispatch import Order
    from robustbench_lab.scheduling.pending_units import Limits
    from robustbench_lab.scheduling.scheduler import Schedule

    catalog = context.catalog
    limits = Limits(spec.max_hours, spec.max_cells)
    return Schedule(store, executor, context, cell_metrics(catalog), Order(spec.order), limits, tracker)


def _evaluate(schedule: Schedule, run_id: str, plan: RunPlan, spec: ExperimentSpec) -> bool:
    """Whether it was interrupted."""
    from robustbench_lab.scheduling.scheduler import Scope, notify_finished

    interrupted = False
    try:
        with stops_gently(schedule.stop):
            schedule.run(run_id, plan, Scope(spec.fresh, spec.retry_failed))
        interrupted = schedule.stopped in (INTERRUPTED, CANCELLED)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        notify_finished(schedule.context.observers, interrupted=interrupted)
    return interrupted
