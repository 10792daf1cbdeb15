"""The task `detection`: outcomes of units and attacks put together, metrics, and what preflight finds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Objective
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.evaluation.evaluate_cell import join_outcomes
from robustbench_lab.evaluation.metric_values import checked_estimate
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.ranking.stored_leaderboard import task_metrics
from robustbench_lab.records import Outcomes, Severity
from robustbench_lab.result_store.packing import pack_outcomes, unpack_outcomes
from robustbench_lab.tasks import detection
from robustbench_lab.tasks.detection import Detection
from robustbench_lab.tasks.detection_objectives import Latency, Untargeted, Vanish
from robustbench_lab.tasks.suppression_input import SuppressionInput
from robustbench_lab.testing.known_detectors import GridDetector, grid_setting
from robustbench_lab.threat_models.norm_balls import Linf

TASK = Detection()


def attacked(
    eps: float, seed: int = 0, samples: int = 6, steps: int = 10, objective: Objective | None = None
) -> Outcomes:
    setting = grid_setting(Linf(eps), objective or Vanish(), samples=samples, seed=seed)
    problem = AttackProblem(setting)
    x = problem.random_start()
    for _ in range(steps):
        _, gradient = problem.loss_and_gradient(x)
        x = problem.project(x + eps / 4 * problem.steepest(gradient, x))
    problem.submit(x)
    return audit_attack(problem, setting, setting.model, passes=1).outcomes


def rows(outcomes: Outcomes, index: slice) -> Outcomes:
    columns = {name: column[index] for name, column in outcomes.columns.items()}
    return Outcomes(outcomes.clean_correct[index], outcomes.robust[index], outcomes.distance[index], columns)


def test_metrics_tell_a_clean_detector_from_a_broken_one() -> None:
    none, all_of_it = attacked(1e-6), attacked(0.2)
    assert detection.clean_map(none).value == pytest.approx(1.0)
    assert detection.robust_map(none).value == pytest.approx(1.0)
    assert detection.vanished_rate(none).value == 0
    assert detection.vanished_rate(all_of_it).value == 1
    assert detection.clean_map(all_of_it).value == pytest.approx(1.0)


def test_intervals_hold_their_values() -> None:
    outcomes = attacked(0.04)
    for name in ("clean_map", "robust_map", "robust_map50", "vanished_rate", "mislabelled_rate", "false_positives"):
        estimate = getattr(detection, name)(outcomes)
        assert estimate.low <= estimate.value <= estimate.high, name


def test_no_object_lost_does_not_mean_that_none_can_be() -> None:
    estimate = detection.vanished_rate(attacked(1e-6))
    assert (estimate.value, estimate.low) == (0, 0)
    assert estimate.high == pytest.approx(1 - 0.025 ** (1 / 12))  # of 12 objects: the exact interval


def test_a_rate_of_nothing_is_nan() -> None:
    outcomes = attacked(0.04)
    columns = {**outcomes.columns, "found": np.zeros_like(outcomes.columns["found"])}
    assert np.isnan(detection.vanished_rate(dataclasses.replace(outcomes, columns=columns)).value)


def test_what_can_be_above_1_is_declared_so_and_keeps_its_value() -> None:
    outcomes = attacked(0.04)
    many = {name: np.full_like(outcomes.columns[name], 30) for name in ("fabricated", "false_positives")}
    outcomes = dataclasses.replace(outcomes, columns={**outcomes.columns, **many})
    for metric in task_metrics(open_catalog(), {"detection"})["detection"]:
        estimate = checked_estimate(metric.function(outcomes), fraction=metric.fraction)
        counts = ("fabricated_rate", "false_positives", "nms_candidates", "clean_nms_candidates")
        assert (estimate.value > 1) == (metric.name in counts)


def test_a_flood_is_the_mean_of_what_goes_to_suppression() -> None:
    setting = grid_setting(Linf(0.2), Vanish())
    clean = setting.model(setting.clean)
    strict = dataclasses.replace(clean, suppression=SuppressionInput(0.35))
    above = [sum(score > 0.35 for score in scores.flatten().tolist()) for scores in clean.logits.sigmoid()]
    assert TASK.measure(strict, setting.targets)["nms_candidates"].tolist() == above
    assert 0 < sum(above) < clean.logits.numel()
    outcomes = attacked(0.2, objective=Latency())
    assert detection.nms_candidates(outcomes).value == outcomes.columns["damage"].mean()
    assert detection.clean_nms_candidates(outcomes).value == 8  # four candidates of two classes, all above 0.05
    few, many = (np.array([3, 1, 2, 1]), np.array([30, 10, 20, 10]))
    columns = {**outcomes.columns, "nms_candidates": few}
    one = detection.nms_candidates(dataclasses.replace(outcomes, columns=columns))
    ten = detection.nms_candidates(dataclasses.replace(outcomes, columns={**columns, "nms_candidates": many}))
    assert (one.value, ten.value) == (1.75, 17.5)
    assert ten.high - ten.low == pytest.approx(10 * (one.high - one.low))
    assert one.low < 1.75 < one.high


def test_a_detector_that_does_not_tell_its_flood_has_none_and_latency_says_why() -> None:
    setting = grid_setting(Linf(0.1), Vanish())
    silent = dataclasses.replace(setting.model(setting.clean), suppression=None)
    assert "nms_candidates" not in TASK.measure(silent, setting.targets)
    with pytest.raises(SkipCell, match=r"latency.least_score=0.05. counts"):
        Latency().prepare(silent, setting.targets)
    assert (Latency(least_score=0.35).prepare(silent, setting.targets)["clean_count"] > 0).all()
    without = attacked(0.05)
    told = ("nms_candidates", "clean_nms_candidates")
    columns = {name: values for name, values in without.columns.items() if name not in told}
    without = dataclasses.replace(without, columns=columns)
    assert np.isnan(detection.nms_candidates(without).value)
    assert np.isnan(detection.clean_nms_candidates(without).value)
    assert set(TASK.worst_case([attacked(0.05), without]).columns) == set(columns)


def test_units_with_different_numbers_of_detections_are_joined() -> None:
    whole = attacked(0.05)
    first, second = rows(whole, slice(0, 2)), rows(whole, slice(2, 6))
    narrow = {
        name: column[:, :2] if name.startswith(("clean_", "robust_")) and column.ndim > 1 else column
        for name, column in first.columns.items()
    }
    joined = join_outcomes([dataclasses.replace(first, columns=narrow), second])
    assert joined.columns["clean_boxes"].shape == whole.columns["clean_boxes"].shape
    assert (joined.columns["clean_labels"][:2, 2:] == 0).all()
    assert (joined.columns["clean_scores"][2:] == whole.columns["clean_scores"][2:]).all()


def test_outcomes_survive_the_store() -> None:
    outcomes = attacked(0.05)
    again = unpack_outcomes(pack_outcomes(outcomes), len(outcomes))
    assert set(again.columns) == set(outcomes.columns)
    assert detection.robust_map(again) == detection.robust_map(outcomes)


def test_the_worst_case_is_never_above_the_lowest_map_of_one_attack() -> None:
    for seed in range(4):
        ones = [attacked(0.03, seed), attacked(0.05, seed, steps=2), attacked(0.04, seed)]
        worst = TASK.worst_case(ones)
        lowest = min(detection.robust_map(one).value for one in ones)
        assert detection.robust_map(worst).value <= lowest + 1e-12
        assert (worst.robust <= np.logical_and.reduce([one.robust for one in ones])).all()


def test_what_an_attack_was_after_counts_also_where_another_has_the_lower_map() -> None:
    flood, wrong = attacked(0.2, objective=Latency()), attacked(0.2, objective=Untargeted())
    more = {"nms_candidates": flood.columns["nms_candidates"] + 100, "damage": flood.columns["damage"] + 100}
    flood = dataclasses.replace(flood, columns={**flood.columns, **more})
    assert detection.robust_map(wrong).value < detection.robust_map(flood).value
    worst = TASK.worst_case([wrong, flood])
    assert detection.robust_map(worst).value == detection.robust_map(wrong).value
    assert detection.nms_candidates(worst).value == detection.nms_candidates(flood).value


def test_rows_are_compared_on_the_same_resamples() -> None:
    weak = attacked(0.01, samples=12)
    half = weak.columns["robust_labels"].copy()
    half[::2] = 0
    strong = dataclasses.replace(weak, columns={**weak.columns, "robust_labels": half})
    difference = TASK.replicates(weak) - TASK.replicates(strong)
    assert difference.shape == (1000,)
    assert (difference >= 0).all()
    assert (difference > 0).mean() > 0.9


def test_preflight_names_what_is_no_detector() -> None:
    setting = grid_setting(Linf(0.1), Vanish())
    (finding,) = TASK.examine(TASK.kept(torch.zeros(2, 10)), setting.targets, None)
    assert finding.code == "not-detections"
    assert "DetectorOutput" in finding.message


def test_preflight_names_labels_that_the_data_does_not_have() -> None:
    setting = grid_setting(Linf(0.1), Vanish())
    kept = TASK.kept(setting.model(setting.clean))
    assert TASK.examine(kept, setting.targets, 2) == []
    assert [finding.code for finding in TASK.examine(kept, setting.targets, 1)] == ["class-count"]


def test_preflight_names_objects_of_classes_that_the_detector_does_not_know() -> None:
    setting = grid_setting(Linf(0.1), Vanish())
    kept = TASK.kept(setting.model(setting.clean))
    labels = setting.targets["labels"].clone()
    labels[-1, 0] = 2
    (finding,) = TASK.examine(kept, {**setting.targets, "labels": labels}, None)
    assert (finding.code, finding.severity) == ("class-count", Severity.FATAL)
    assert "label 2, the model knows 2 classes" in finding.message
    (finding,) = TASK.examine(kept, setting.targets, 3)
    assert (finding.code, finding.severity) == ("class-count", Severity.SUSPECT)
    assert "count as never found" in finding.message
    black_box = {name: value for name, value in kept.items() if name != "known"}
    assert TASK.examine(black_box, setting.targets, 3) == []


def test_preflight_names_a_detector_that_finds_nothing() -> None:
    setting = grid_setting(Linf(0.1), Vanish())
    kept = TASK.kept(setting.model(setting.clean))
    moved = {**setting.targets, "boxes": setting.targets["boxes"] + 100}
    assert [finding.code for finding in TASK.examine(kept, moved, 2)] == ["nothing-found"]
    shares = {**kept, "boxes": kept["boxes"] / 8}
    assert [finding.code for finding in TASK.examine(shares, moved, 2)] == ["boxes-not-in-pixels"]


def test_nan_boxes_are_named() -> None:
    setting = grid_setting(Linf(0.1), Vanish())
    kept = TASK.kept(setting.model(setting.clean))
    broken = {**kept, "boxes": kept["boxes"] * torch.nan}
    assert [finding.code for finding in TASK.examine(broken, setting.targets, 2)] == ["nan-detections"]


def test_the_numbers_by_which_passes_are_compared_depend_on_no_other_image() -> None:
    setting = grid_setting(Linf(0.1), Untargeted())
    model = GridDetector()
    together = TASK.numbers(TASK.kept(model(setting.clean)))
    alone = TASK.numbers(TASK.kept(model(setting.clean[:1])))
    assert torch.allclose(together[:1], alone)
