"""The stages, in order: spec -> plan -> schedule -> evaluate cell -> store -> leaderboard -> report."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lab.catalog import Catalog
from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import describe_error
from robustbench_lab.experiment_spec import ExperimentSpec
from robustbench_lab.leaderboard import AttackTraits, Leaderboard, LeaderboardDefinition, NamedMetric, build_leaderboard
from robustbench_lab.plugin_loading import load_plugins
from robustbench_lab.provenance import environment
from robustbench_lab.records import CellRecord, Outcomes
from robustbench_lab.result_store import ResultStore, checkpoints_folder, open_store
from robustbench_lab.run_observer import GuardedObserver, RunObserver
from robustbench_lab.run_plan import RunPlan, make_plan

if TYPE_CHECKING:
    from robustbench_lab.executors import ExecutionContext, Executor
    from robustbench_lab.scheduler import Schedule


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind, beside the database."""

    run_id: str
    plan: RunPlan
    records: tuple[CellRecord, ...]
    """One for each finished cell of the plan, in its order; fewer where the run was interrupted."""
    computed: int
    """How many of them this run evaluated; the others were stored already."""
    interrupted: bool
    leaderboard: Leaderboard


def open_catalog(files: Sequence[str] = (), extra: Sequence[tuple[str, object]] = ()) -> Catalog:
    """All plugins there are: installed ones, single files, and live objects (name, plugin)."""
    return Catalog.from_plugins(load_plugins(files, extra))


def run_experiment(
    spec: ExperimentSpec,
    catalog: Catalog,
    *,
    observers: Sequence[RunObserver] = (),
    command: Sequence[str] = (),
) -> RunResult:
    """Run every stage. On Ctrl-C what is finished is kept, and the result says that it was interrupted."""
    plan = make_plan(spec, catalog)
    watcher = _Watcher()
    guarded = [GuardedObserver(observer) for observer in (*catalog.observers(), *observers)]
    executor = catalog.build("executors", catalog.resolve("executors", spec.executor))
    context = _context(spec, catalog, [watcher, *guarded])
    # Opened last: a request that is refused leaves no new database behind.
    with open_store(spec.database, artifacts_folder=spec.artifacts) as store:
        schedule = _schedule(store, executor, context, catalog)
        run_id = store.begin_run(command, spec.to_json(), environment())
        interrupted = _evaluate(schedule, run_id, plan, spec)
        store.finish_run(run_id, "interrupted" if interrupted else "finished")
        records = store.cells(ids=[cell.cell_id for cell in plan.cells])
    leaderboard = rank(records, LeaderboardDefinition(), catalog)
    return RunResult(run_id, plan, tuple(records), watcher.computed, interrupted, leaderboard)


def rank(records: Sequence[CellRecord], definition: LeaderboardDefinition, catalog: Catalog) -> Leaderboard:
    """Stage 6: stored results to tables."""
    names = {record.cell.task for record in records}
    tasks = {name: catalog.load_factory("tasks", name)() for name in names}
    traits = {
        entry.spec.name: AttackTraits(entry.spec.baseline, entry.spec.access) for entry in catalog.entries("attacks")
    }
    return build_leaderboard(records, definition, tasks, task_metrics(catalog, names), traits)


def task_metrics(catalog: Catalog, tasks: set[str]) -> Mapping[str, Sequence[NamedMetric]]:
    """The metrics of each task, by whichever plugin."""
    metrics: dict[str, list[NamedMetric]] = {task: [] for task in tasks}
    for entry in catalog.entries("metrics"):
        for task in tasks.intersection(entry.spec.tasks):
            spec = entry.spec
            function = _guarded(spec.name, catalog.load_factory("metrics", spec.name))
            metrics[task].append(NamedMetric(spec.name, function, spec.higher_is_better, spec.fraction))
    return metrics


def _guarded(name: str, metric: Callable[[Outcomes], Estimate]) -> Callable[[Outcomes], Estimate]:
    """A metric that raises costs its own number only."""

    def computed(outcomes: Outcomes) -> Estimate:
        try:
            return metric(outcomes)
        except Exception as error:
            warnings.warn(f"metric '{name}' has no value: {describe_error(error)}", stacklevel=2)
            return Estimate(math.nan, math.nan, math.nan)

    return computed


class _Watcher(RunObserver):
    """Counts what this run evaluated."""

    def __init__(self) -> None:
        self.computed = 0

    def cell_finished(self, record: CellRecord) -> None:  # noqa: ARG002 (the protocol's)
        self.computed += 1


def _context(spec: ExperimentSpec, catalog: Catalog, observers: Sequence[RunObserver]) -> ExecutionContext:
    from robustbench_lab.devices import resolve_devices
    from robustbench_lab.evaluate_cell import EvaluationOptions
    from robustbench_lab.executors import ExecutionContext

    return ExecutionContext(
        catalog=catalog,
        devices=resolve_devices(spec.devices),
        options=EvaluationOptions(
            spec.batch_size,
            spec.save_adversarials,
            mixed_precision=spec.precision == "mixed",
            checkpoints=checkpoints_folder(spec.database),
            resume=not spec.fresh,
        ),
        observers=tuple(observers),
    )


def _schedule(store: ResultStore, executor: Executor, context: ExecutionContext, catalog: Catalog) -> Schedule:
    from robustbench_lab.scheduler import Schedule

    named = task_metrics(catalog, {entry.spec.name for entry in catalog.entries("tasks")})
    metrics = {task: {metric.name: metric.function for metric in those} for task, those in named.items()}
    return Schedule(store, executor, context, metrics)


def _evaluate(schedule: Schedule, run_id: str, plan: RunPlan, spec: ExperimentSpec) -> bool:
    """Whether it was interrupted."""
    from robustbench_lab.scheduler import Scope, notify_finished

    interrupted = False
    try:
        schedule.run(run_id, plan, Scope(spec.fresh, spec.retry_failed))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        notify_finished(schedule.context.observers, interrupted=interrupted)
    return interrupted
