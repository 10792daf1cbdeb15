"""What an adversary wants of a detector, on one whose optimum is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.tasks.detection_measures import Matches, Scene
from robustbench_lab.tasks.detection_objectives import (
    Dag,
    DetectionObjective,
    Fabricate,
    Feature,
    Latency,
    Mislabel,
    TargetedMislabel,
    Untargeted,
    Vanish,
)
from robustbench_lab.tasks.detector_output import DetectorOutput, padded
from robustbench_lab.testing.known_detectors import CLASSES, grid_setting
from robustbench_lab.threat_models.norm_balls import Linf

EPS = 0.08
OBJECTIVES = [
    Untargeted(),
    Untargeted(labels="self"),
    Vanish(),
    Fabricate(),
    Mislabel(),
    TargetedMislabel(target=1),
    Dag(),
    Feature(),
    Latency(least_score=0.35),
]


def pgd(problem: AttackProblem, loss: str | None = None, steps: int = 20) -> None:
    x = problem.random_start()
    for _ in range(steps):
        _, gradient = problem.loss_and_gradient(x, loss)
        x = problem.project(x + problem.eps / 4 * problem.steepest(gradient, x))
    problem.submit(x)


def detections_of(*images: list[tuple[list[float], float, int]]) -> dict[str, Tensor]:
    """Box, score and label of each detection."""
    return padded(
        [
            (
                torch.tensor([box for box, _, _ in ones]).reshape(-1, 4),
                torch.tensor([score for _, score, _ in ones]),
                torch.tensor([label for _, _, label in ones], dtype=torch.int64),
            )
            for ones in images
        ]
    )


def scene(*objects: tuple[list[float], int]) -> Scene:
    labels = torch.tensor([[label for _, label in objects]])
    return Scene(torch.tensor([[box for box, _ in objects]]), labels, torch.zeros_like(labels, dtype=torch.bool))


HERE, THERE, NOWHERE = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 50, 60, 60]


def test_found_covered_and_invented_are_told_apart() -> None:
    objects = scene((HERE, 0), (THERE, 1))
    reported = detections_of([(HERE, 0.9, 0), (THERE, 0.8, 0), (NOWHERE, 0.7, 1), (NOWHERE, 0.2, 1)])
    matches = Matches(objects, reported)
    assert matches.found.tolist() == [[True, False]]
    assert matches.covered.tolist() == [[True, True]]
    assert matches.false_positives.tolist() == [2]
    assert matches.fabricated.tolist() == [1]
    assert matches.confidence()[0].tolist() == pytest.approx([0.9, 0.0])
    assert matches.confidence(right=False)[0].tolist() == pytest.approx([0.0, 0.8])
    assert matches.invented_scores().tolist() == pytest.approx([0.8 + 0.7 + 0.2])
    assert matches.label_confidence(torch.tensor([[1, 0]]))[0].tolist() == pytest.approx([0.0, 0.8])


def test_an_object_adds_precision_at_its_rank_times_the_thresholds_it_reaches() -> None:
    objects = scene((HERE, 0), (THERE, 1))
    near = [0.0, 0, 10, 8]  # IoU 0.8: it reaches 7 of the 10 thresholds
    ranked = detections_of([(NOWHERE, 0.9, 1), (THERE, 0.8, 1), (NOWHERE, 0.7, 0), (near, 0.6, 0), (NOWHERE, 0.1, 0)])
    # THERE: of two detections down to it one is right. HERE: of four, two.
    assert Matches(objects, ranked).precision()[0].tolist() == pytest.approx([0.7 * 2 / 4, 1 / 2])
    assert Matches(objects, detections_of([])).precision().tolist() == [[0.0, 0.0]]
    perfect = detections_of([(HERE, 0.9, 0), (THERE, 0.8, 1), (NOWHERE, 0.1, 0)])
    assert Matches(objects, perfect).precision()[0].tolist() == pytest.approx([1.0, 1.0])


def test_a_detection_below_the_working_point_covers_nothing() -> None:
    matches = Matches(scene((HERE, 0)), detections_of([(HERE, 0.49, 0)]))
    assert not matches.found.any()
    assert not matches.covered.any()
    assert matches.false_positives.tolist() == [0]


def test_what_lies_in_a_crowd_is_no_false_alarm_and_a_crowd_need_not_be_found() -> None:
    crowd = Scene(torch.tensor([[HERE]]), torch.tensor([[-1]]), torch.tensor([[True]]))
    matches = Matches(crowd, detections_of([(HERE, 0.9, 0), (NOWHERE, 0.9, 0)]))
    assert matches.false_positives.tolist() == [1]
    assert not matches.found.any()


def test_places_without_objects_are_never_found() -> None:
    objects = Scene(torch.zeros(1, 2, 4), torch.full((1, 2), -1), torch.zeros(1, 2, dtype=torch.bool))
    matches = Matches(objects, detections_of([(HERE, 0.9, 0)]))
    assert not matches.found.any()
    assert matches.false_positives.tolist() == [1]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_pgd_harms_more_than_nothing_and_the_core_confirms_it(objective: DetectionObjective) -> None:
    setting = grid_setting(Linf(EPS), objective)
    problem = AttackProblem(setting)
    pgd(problem)
    audit = audit_attack(problem, setting, setting.model, passes=1)
    assert (audit.outcomes.columns["damage"] >= setting.clean_measure["damage"].numpy()).all()
    assert audit.outcomes.columns["damage"].sum() > setting.clean_measure["damage"].sum()
    assert not [finding for finding in audit.problems if finding.code != "loss-still-rises"]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_losses_and_damage_are_of_each_image_by_itself(objective: DetectionObjective) -> None:
    setting = grid_setting(Linf(EPS), objective)
    whole = AttackProblem(setting)
    loss, gradient = whole.loss_and_gradient(setting.clean)
    for image in range(len(setting.clean)):
        part = whole.part(torch.tensor([image]))
        one_loss, one_gradient = part.loss_and_gradient(setting.clean[image : image + 1])
        assert torch.allclose(one_loss, loss[image], atol=1e-5)
        assert torch.allclose(one_gradient[0], gradient[image], atol=1e-5)


def test_vanish_reaches_the_optimum_known_in_closed_form() -> None:
    setting = grid_setting(Linf(EPS), Vanish())
    problem = AttackProblem(setting)
    pgd(problem)
    lowest = setting.model(problem.candidates).logits.amax(2)
    weight = setting.model.weight
    # Of the best class of a cell; both cannot be lowest at once, so the optimum for one bounds the best from below.
    bound = (setting.model(setting.clean).logits - EPS * weight.abs().sum(1)).amax(2)
    objects = [0, 3]
    assert (lowest[:, objects] >= bound[:, objects] - 1e-4).all()
    assert audit_attack(problem, setting, setting.model, passes=1).outcomes.columns["vanished"].all()


def test_a_broken_image_has_lost_every_object_it_had() -> None:
    setting = grid_setting(Linf(EPS), Vanish())
    goal = setting.goal
    gone = DetectorOutput(lambda: detections_of(*([[]] * 6)))
    assert Vanish().succeeded(gone, goal).all()
    assert Untargeted().succeeded(gone, goal).all()
    assert not Mislabel().succeeded(gone, goal).any()
    assert not Vanish().succeeded(setting.model(setting.clean), goal).any()
    one_left = [[(goal["boxes"][image, 0].tolist(), 0.9, int(goal["labels"][image, 0]))] for image in range(6)]
    assert not Vanish().succeeded(DetectorOutput(lambda: detections_of(*one_left)), goal).any()


def test_mislabelled_means_another_label_and_not_the_own_one() -> None:
    setting = grid_setting(Linf(EPS), Mislabel())
    goal = setting.goal

    def renamed(keep: bool) -> DetectorOutput:
        images = []
        for image in range(6):
            boxes, labels = goal["boxes"][image].tolist(), goal["labels"][image].tolist()
            ones = [(box, 0.9, 1 - label) for box, label in zip(boxes, labels, strict=True)]
            images.append(ones + ([(boxes[0], 0.8, labels[0])] if keep else []))
        return DetectorOutput(lambda: detections_of(*images))

    assert Mislabel().succeeded(renamed(keep=False), goal).all()
    assert not Mislabel().succeeded(renamed(keep=True), goal).any()
    assert (Mislabel().damage(renamed(keep=False), goal) > Mislabel().damage(renamed(keep=True), goal)).all()


def test_the_likeliest_wrong_label_is_never_the_own_one() -> None:
    setting = grid_setting(Linf(EPS), Mislabel())
    assert (setting.goal["wrong"] == 1 - setting.goal["labels"]).all()  # there are two classes


def test_a_chosen_label_spares_objects_that_have_it() -> None:
    setting = grid_setting(Linf(EPS), TargetedMislabel(target=1))
    labels, wrong = setting.goal["labels"], setting.goal["wrong"]
    assert (wrong[labels == 0] == 1).all()
    assert (wrong[labels == 1] == 0).all()
    with pytest.raises(SkipCell, match="the model has 2 classes, from 0 to 1"):
        grid_setting(Linf(EPS), TargetedMislabel(target=CLASSES))


def test_own_labels_are_what_the_model_reports() -> None:
    truth = grid_setting(Linf(EPS), Untargeted())
    own = grid_setting(Linf(EPS), Untargeted(labels="self"))
    found = own.goal["labels"] >= 0
    assert found.sum(1).tolist() == (truth.goal["labels"] >= 0).sum(1).tolist()
    reported = own.model(own.clean).detections
    assert (own.goal["labels"][:, :2] == reported["labels"][:, :2]).all()


def test_an_unknown_loss_is_named() -> None:
    problem = AttackProblem(grid_setting(Linf(EPS), Vanish()))
    with pytest.raises(UsageError, match=r"there is no loss .togg..*Did you mean .tog."):
        problem.loss_and_gradient(problem.clean, "togg")


def test_a_black_box_is_said_to_have_no_gradient() -> None:
    with pytest.raises(SkipCell, match="no candidates"):
        Vanish().loss(None, DetectorOutput(lambda: detections_of([])), {})
    with pytest.raises(SkipCell, match="no training loss"):
        DetectorOutput(lambda: detections_of([])).loss_of(torch.zeros(1, 1, 4), torch.zeros(1, 1))


def test_outcomes_of_an_attack_outside_the_region_are_those_of_the_clean_image() -> None:
    setting: ProblemSetting = grid_setting(Linf(EPS), Vanish())
    problem = AttackProblem(setting)
    problem.submit((setting.clean + 2 * EPS).clamp(0, 1))
    columns = audit_attack(problem, setting, setting.model, passes=1).outcomes.columns
    assert not columns["vanished"].any()
    assert (columns["robust_scores"] == columns["clean_scores"]).all()
