"""A detector from Python to the leaderboard, the report and back."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from robustbench_lab import evaluate
from robustbench_lab.api import Evaluation
from robustbench_lab.cli.show import show
from robustbench_lab.errors import UsageError
from robustbench_lab.pipeline import open_catalog, rank, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.ranking.leaderboard import LeaderboardDefinition
from robustbench_lab.records import CellRecord, Verdict
from robustbench_lab.report import csv, jsonl, latex, markdown, table
from robustbench_lab.report.formatting import brief_metrics, metric_title
from robustbench_lab.tasks.detection_objectives import Vanish
from robustbench_lab.testing.known_detectors import GridDetector, grid_setting
from robustbench_lab.threat_models.norm_balls import Linf


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    setting = grid_setting(Linf(0.1), Vanish(), samples=8)
    attacks = ["pgd(steps=12)", "noise"]
    return evaluate(GridDetector(), (setting.clean, setting.targets), attacks, eps=0.08, batch_size=3)


def test_a_detector_at_hand_gets_a_row_with_intervals(evaluation: Evaluation) -> None:
    (board,) = evaluation.leaderboard.tables
    (row,) = board.rows
    assert (board.task, board.sort, board.main_metric.name) == ("detection", "robust_map", "robust_map")
    assert row.rank == 1
    assert row.metrics["clean_map"].value == pytest.approx(1.0)
    assert row.metrics["robust_map"].value < 0.9
    low, value, high = (getattr(row.metrics["robust_map"], part) for part in ("low", "value", "high"))
    assert low <= value <= high
    assert low < high


def test_a_row_is_never_above_its_attacks(evaluation: Evaluation) -> None:
    (row,) = evaluation.leaderboard.tables[0].rows
    assert row.metrics["robust_map"].value <= min(one.metrics["robust_map"].value for one in row.attacks)


def test_every_format_shows_map(evaluation: Evaluation) -> None:
    for render in (table.render, markdown.render, csv.render, latex.render):
        assert "map" in render(evaluation.leaderboard).lower()


def test_results_written_as_lines_rank_the_same_elsewhere(evaluation: Evaluation) -> None:
    again = jsonl.read_lines(jsonl.render(evaluation.leaderboard).splitlines(), "results.jsonl")
    definition = LeaderboardDefinition(name="results", title="Results", description="")
    (before,), (after,) = (
        board.tables[0].rows for board in (evaluation.leaderboard, rank(again, definition, open_catalog()))
    )
    assert before.metrics == after.metrics


def test_objectives_of_the_same_name_are_the_tasks_own(evaluation: Evaluation) -> None:
    record = evaluation.records[0]
    assert record.cell.objective.label == "untargeted"
    assert record.cell.objective.params["labels"] == "truth"


def test_targets_that_do_not_fit_are_named() -> None:
    images = torch.rand(4, 1, 8, 8)
    with pytest.raises(UsageError, match="missing: boxes"):
        evaluate(GridDetector(), (images, {"labels": torch.zeros(4, 2)}))
    with pytest.raises(UsageError, match="do not fit together"):
        evaluate(GridDetector(), (images, {"boxes": torch.rand(4, 3, 4), "labels": torch.zeros(4, 2).long()}))


def test_a_classifier_on_detection_data_is_named_in_one_line() -> None:
    setting = grid_setting(Linf(0.1), Vanish(), samples=4)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    (record,) = evaluate(net, (setting.clean, setting.targets)).records
    assert record.status == "skipped"
    assert "must return a DetectorOutput" in str(record.reason)


def test_more_can_be_fabricated_than_was_there_without_losing_a_number(tmp_path: Path) -> None:
    settings = {"models": ["scene-fcos"], "objectives": ["fabricate"], "attacks": ["pgd(steps=10)"], "samples": 4}
    spec = ExperimentSpec.from_flags(**settings, executor="inline", database=str(tmp_path / "rbl.db"))
    made = run_experiment(spec, open_catalog())
    (record,) = made.records
    (row,) = made.leaderboard.tables[0].rows
    assert "metric-failed" not in [finding.code for finding in record.findings]
    assert row.metrics["fabricated_rate"].value > 1
    assert all(math.isfinite(estimate.value) for estimate in row.metrics.values())


def test_a_patch_trained_on_some_images_is_tested_on_others_from_its_picture(tmp_path: Path) -> None:
    database = str(tmp_path / "rbl.db")

    def run(attack: str, **more: Any) -> CellRecord:
        settings = {"models": ["scene-fcos"], "threat_models": ["placed-patch(eps=0.1)"], "attacks": [attack], **more}
        spec = ExperimentSpec.from_flags(**settings, executor="inline", database=database)
        (record,) = run_experiment(spec, open_catalog()).records
        return record

    trained = run("adversarial-patch(steps=3)", samples=3, save_adversarials=True)
    show(trained.cell.cell_id, db=database, pictures=tmp_path / "pictures")
    made = tmp_path / "pictures" / f"{trained.cell.cell_id}-patch-1.png"
    given = run(f"adversarial-patch(patch='{made}')", samples=6)
    assert [finding.code for finding in given.findings if "patch" in finding.code] == ["given-patch"]
    assert given.backward_per_sample == 0
    assert given.outcomes is not None
    assert trained.outcomes is not None
    damage, again = (one.outcomes.columns["damage"][:3] for one in (trained, given))
    assert damage == pytest.approx(again, abs=0.05)  # eight bits a value


@pytest.mark.parametrize(
    ("objective", "own"),
    [
        ("latency", ["nms_candidates", "clean_nms_candidates"]),
        ("fabricate", ["false_positives", "fabricated_rate"]),
        ("vanish", ["vanished_rate"]),
        ("mislabel", ["mislabelled_rate"]),
    ],
)
def test_a_terminal_shows_first_what_the_objective_is_after(
    evaluation: Evaluation, objective: str, own: list[str]
) -> None:
    board = replace(evaluation.leaderboard.tables[0], objective=objective)
    names = [metric.name for metric in brief_metrics(board)]
    assert names[: 2 + len(own)] == ["clean_map", "robust_map", *own]
    title = metric_title(own[0]).split()
    narrow = io.StringIO()
    leaderboard = replace(evaluation.leaderboard, tables=(board,))
    Console(file=narrow, width=100, color_system=None).print(table.renderable(leaderboard))
    assert all(word in narrow.getvalue() for word in title)


@pytest.mark.parametrize(("labels", "verdict"), [([0], Verdict.SUSPECT), ([9], Verdict.FAILED)])
def test_images_that_hold_nothing_to_attack_take_no_pass_and_are_counted(labels: list[int], verdict: Verdict) -> None:
    setting = grid_setting(Linf(0.1), Vanish(), samples=8)
    names = setting.targets["labels"].clone()
    names[:3][names[:3] == 0] = 1  # the first images hold none of them
    within_reach = int((names == labels[0]).any(1).sum())
    assert within_reach <= 5
    place = f"object-patch(eps=0.5, labels={labels})"
    data = (setting.clean, {**setting.targets, "labels": names})
    (record,) = evaluate(GridDetector(), data, ["pgd(steps=4)"], threat_models=[place]).records
    found = {finding.code: finding.value for finding in record.findings}
    assert found["out-of-reach"] == 8 - within_reach
    assert "unmoved" not in found
    assert record.verdict is verdict
    assert record.backward_per_sample == 4 * within_reach / 8
