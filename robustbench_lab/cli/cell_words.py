"""A cell and its result in a few words, for lines of progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from robustbench_lab.contracts import MetricSpec
from robustbench_lab.records import Cell, CellRecord
from robustbench_lab.report.formatting import duration_text, eps_text, metric_words, printable, shorten, value_text


def cell_name(cell: Cell) -> str:
    """`pgd · digits-cnn · linf 8/255`; long labels are cut in the middle."""
    defended = cell.model.label if cell.defense.label == "none" else f"{cell.model.label} + {cell.defense.label}"
    parts = (shorten(printable(cell.attack.label), 40), shorten(printable(defended), 36), cell.threat_model.name)
    return f"{' · '.join(parts)} {eps_text(cell.eps)}"


def headline_metrics(specs: Iterable[MetricSpec]) -> dict[str, list[MetricSpec]]:
    """Task to its main metric, after what that is without attack, and those that are some objective's own.

    Of a task without a main one its first two.
    """
    of_task: dict[str, list[MetricSpec]] = {}
    for spec in specs:
        for task in spec.tasks:
            of_task.setdefault(task, []).append(spec)
    return {task: _headline(metrics) for task, metrics in of_task.items()}


def _headline(metrics: Sequence[MetricSpec]) -> list[MetricSpec]:
    main = next((one for one in metrics if one.main), None)
    if main is None:
        return list(metrics[:2])
    return [*(one for one in metrics if one.name == main.clean), main, *(one for one in metrics if one.objectives)]


def result_text(record: CellRecord, headline: Mapping[str, Sequence[MetricSpec]]) -> str:
    """What a finished cell gave, in a few words. headline: of each task."""
    if record.reason:
        return f"{record.status.value}: {printable(record.reason)}"
    values = [
        f"{metric_words(metric.name)} {value_text(record.metrics.get(metric.name), fraction=metric.fraction)}"
        for metric in headline.get(record.cell.task, ())
        if not metric.objectives or record.cell.objective.name in metric.objectives
    ]
    return f"{', '.join(values)} ({duration_text(record.wall_seconds)})"
