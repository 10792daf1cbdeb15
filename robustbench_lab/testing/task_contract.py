"""What a task must keep to, checked on small attacks on a model of it. Shipped for authors of plugins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.contracts import Task
from robustbench_lab.evaluation.evaluate_cell import EvaluationOptions, evaluate_unit, join_outcomes
from robustbench_lab.evaluation.workbench import Workbench
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import make_plan
from robustbench_lab.ranking.leaderboard import NamedMetric
from robustbench_lab.ranking.stored_leaderboard import task_metrics
from robustbench_lab.records import Cell, Outcomes, Status, WorkUnit

SAMPLES, CUT = 12, 5
"""How many samples are attacked, and where they are cut into two work units."""
ATTACKS = (Component("noise"), Component("pgd", {"steps": 3}))
SAME = 1e-6


def model_to_check_with(catalog: Catalog, task: str) -> tuple[str, str] | None:
    """A model of the task and its data, by name; None where no model of it names any."""
    models = (one.spec for one in catalog.entries("models") if task in one.spec.tasks and not one.problem)
    return next(((one.name, one.reference_dataset) for one in models if one.reference_dataset), None)


def check_task(catalog: Catalog, name: str) -> list[str]:
    """What is wrong with a task, a line each; nothing where it keeps to the contract.

    Random noise and a short PGD attack the first model of the task that names its data (`model_to_check_with`).
    """
    task: Task = catalog.load_factory("tasks", name)()
    metrics = task_metrics(catalog, [name])[name]
    if wrong := list(_wrong_names(catalog, name, task, metrics)):
        return wrong
    bench = Workbench(catalog, torch.device("cpu"))
    whole: list[Outcomes] = []
    for cell in _cells(catalog, name):
        outcomes = _evaluated(bench, cell, 0, SAMPLES)
        parts = [_evaluated(bench, cell, 0, CUT), _evaluated(bench, cell, CUT, SAMPLES)]
        if isinstance(outcomes, str):
            return [f"{cell.attack.label} on {cell.model.label}: {outcomes}"]
        whole.append(outcomes)
        if differing := [one.name for one in metrics if not _same(one, outcomes, _joined(parts))]:
            return [f"cut into two units a cell gives another {', '.join(differing)}: treat every sample on its own"]
    return [*_wrong_worst_case(task, whole, metrics), *_wrong_replicates(task, whole)]


def _wrong_names(catalog: Catalog, name: str, task: Task, metrics: Sequence[NamedMetric]) -> Iterator[str]:
    if task.name != name:
        yield f"its spec calls it '{name}', and it calls itself '{task.name}'"
    objectives = [one.spec for one in catalog.entries("objectives")]
    if not any(one.name == task.default_objective and (not one.tasks or name in one.tasks) for one in objectives):
        yield f"its default objective '{task.default_objective}' is no objective of this task"
    if not metrics:
        yield "no metric is for it: a leaderboard needs at least one"
    elif sum(one.main for one in metrics) > 1:
        yield f"several metrics call themselves the main one: {', '.join(one.name for one in metrics if one.main)}"


def _cells(catalog: Catalog, task: str) -> Sequence[Cell]:
    known = model_to_check_with(catalog, task)
    model, dataset = known or ("", "")
    flags = {"models": [Component(model)], "datasets": [Component(dataset)], "tasks": [task]}
    return make_plan(ExperimentSpec.from_flags(attacks=list(ATTACKS), samples=SAMPLES, **flags), catalog).cells


def _evaluated(bench: Workbench, cell: Cell, start: int, stop: int) -> Outcomes | str:
    """Of some samples; otherwise why there are none."""
    record = evaluate_unit(WorkUnit(cell, start, stop), bench, EvaluationOptions(), lambda *_: None)
    if record.status is Status.OK and record.outcomes is not None:
        return record.outcomes
    return f"{record.status.value}: {record.reason}"


def _joined(parts: Sequence[Outcomes | str]) -> Outcomes | str:
    failed = [one for one in parts if isinstance(one, str)]
    return failed[0] if failed else join_outcomes([one for one in parts if isinstance(one, Outcomes)])


def _same(metric: NamedMetric, one: Outcomes, other: Outcomes | str) -> bool:
    if isinstance(other, str):
        return False
    first, second = metric.function(one).value, metric.function(other).value
    return math.isclose(first, second, rel_tol=SAME, abs_tol=SAME) or (math.isnan(first) and math.isnan(second))


def _wrong_worst_case(task: Task, whole: Sequence[Outcomes], metrics: Sequence[NamedMetric]) -> Iterator[str]:
    def agree(one: Outcomes, other: Outcomes) -> bool:
        same = np.array_equal(one.robust, other.robust) and np.array_equal(one.clean_correct, other.clean_correct)
        return same and all(_same(metric, one, other) for metric in metrics)

    for one in whole:
        if not agree(task.worst_case([one]), one):
            yield "worst_case of the outcomes of one attack gives others than these"
            return
    worst = task.worst_case(whole)
    if (worst.robust & ~np.logical_and.reduce([one.robust for one in whole])).any():
        yield "worst_case calls samples robust that an attack broke"
    if not agree(worst, task.worst_case(whole[::-1])):
        yield "worst_case depends on the order of the attacks"
    if not agree(worst, task.worst_case([_in_turn(whole, 0), _in_turn(whole, 1)])):
        yield "worst_case must be the worst for each sample by itself, whichever attack did it"


def _in_turn(whole: Sequence[Outcomes], first: int) -> Outcomes:
    """Of each sample what one of the attacks did, in turn."""
    return join_outcomes([_part(whole[(first + at) % len(whole)], at, at + 1) for at in range(SAMPLES)])


def _part(outcomes: Outcomes, start: int, stop: int) -> Outcomes:
    return Outcomes(
        outcomes.clean_correct[start:stop],
        outcomes.robust[start:stop],
        outcomes.distance[start:stop],
        {name: column[start:stop] for name, column in outcomes.columns.items()},
    )


def _wrong_replicates(task: Task, whole: Sequence[Outcomes]) -> Iterator[str]:
    drawn = [task.replicates(one) for one in (whole[0], whole[0], whole[-1])]
    known = [one for one in drawn if one is not None]
    if not known:
        return
    if len(known) < len(drawn) or any(one.ndim != 1 or len(one) != len(known[0]) for one in known):
        yield "replicates must give arrays [R] of one length for as many samples, or None always"
    elif not np.array_equal(known[0], known[1], equal_nan=True):
        yield "replicates differ from call to call: draw the same resamples for as many samples"
