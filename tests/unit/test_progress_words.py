"""What lines of progress say of a cell."""

from dataclasses import replace

import pytest

from robustbench_lab.builtin_plugin import rbl_metrics
from robustbench_lab.cli.cell_words import cell_name, headline_metrics, result_text
from robustbench_lab.cli.progress import LineProgress
from robustbench_lab.contracts import Estimate, MetricSpec
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Status, WorkUnit
from robustbench_lab.testing.example_results import example_gap, example_result


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("classification", ["clean_accuracy", "robust_accuracy"]),
        ("detection", ["clean_map", "robust_map"]),
        ("forecasting", ["clean_mase", "robust_mase"]),
    ],
)
def test_a_line_names_what_the_tables_of_the_task_are_sorted_by_and_the_same_without_attack(task, expected):
    headline = headline_metrics(rbl_metrics())[task]
    assert [metric.name for metric in headline if not metric.objectives] == expected


def test_a_task_without_a_main_metric_shows_its_first_two():
    metrics = [MetricSpec(name=name, factory="package:metric", tasks=("tracking",)) for name in "abc"]
    assert [metric.name for metric in headline_metrics(metrics)["tracking"]] == ["a", "b"]


def test_a_result_is_its_values_in_their_own_units():
    metrics = [
        MetricSpec(name="clean_mase", factory="package:metric", fraction=False),
        MetricSpec(name="robust_mase", factory="package:metric", fraction=False, main=True, clean="clean_mase"),
    ]
    record = example_result([True, False])
    record.metrics.clear()
    record.metrics.update(clean_mase=Estimate(0.41, 0.4, 0.5), robust_mase=Estimate(0.826, 0.7, 0.9))
    assert result_text(record, headline_metrics(metrics)).startswith("clean MASE 0.41, robust MASE 0.826 (")


def test_a_line_names_what_the_objective_is_after():
    metrics = [
        MetricSpec(name="robust_map", factory="package:metric", main=True),
        MetricSpec(name="false_positives", factory="package:metric", fraction=False, objectives=("fabricate",)),
        MetricSpec(name="nms_candidates", factory="package:metric", fraction=False, objectives=("latency", "targeted")),
    ]
    values = {"robust_map": 0.5, "false_positives": 7.0, "nms_candidates": 1200.0}
    record = example_result([True, False])
    record.metrics.clear()
    record.metrics.update({name: Estimate(value, value, value) for name, value in values.items()})
    headline = headline_metrics(metrics)
    for objective, expected in {
        "untargeted": "robust mAP 50.0% (",
        "fabricate": "robust mAP 50.0%, false positives 7 (",
        "latency": "robust mAP 50.0%, NMS candidates 1200 (",
    }.items():
        cell = replace(record.cell, objective=replace(record.cell.objective, name=objective))
        assert result_text(replace(record, cell=cell), headline).startswith(expected)


def test_a_cell_without_result_says_why():
    gap = example_gap(Status.FAILED, "error: it broke", model="net", samples=2)
    assert result_text(gap, {}) == "failed: error: it broke"


def test_a_unit_that_lost_its_worker_gets_a_line(capsys):
    gap = example_gap(Status.FAILED, "error: it broke", model="net", samples=2)
    LineProgress({}).unit_retried(WorkUnit(gap.cell, 0, 2), Slot("cpu/1", "cpu", 1), "worker was killed")
    assert capsys.readouterr().err == f"cpu/1: {cell_name(gap.cell)} begins again: worker was killed\n"
