import pytest
import torch

from robustbench_lab.tasks.suppression_input import SuppressionInput

SCORES = torch.tensor(
    [[[0.9, 0.6], [0.1, 0.55], [0.2, 0.3]], [[0.1, 0.1], [0.1, 0.1], [0.1, 0.1]]], dtype=torch.float64
)
"""Of two images with three candidates and two classes."""


@pytest.mark.parametrize(
    ("least_score", "best_class_only", "expected"),
    [(0.5, False, [3, 0]), (0.5, True, [2, 0]), (0.25, False, [4, 0]), (0.25, True, [3, 0]), (0.05, False, [6, 6])],
)
def test_what_scores_above_the_least_is_counted(least_score: float, best_class_only: bool, expected: list[int]) -> None:
    rule = SuppressionInput(least_score, best_class_only)
    assert rule.count(SCORES.logit()).tolist() == expected


def test_a_score_at_the_threshold_does_not_go_there() -> None:
    assert SuppressionInput(0.5).count(torch.zeros(1, 2, 2)).tolist() == [0]


def test_without_candidates_there_are_none() -> None:
    assert SuppressionInput(0.5).count(torch.zeros(2, 0, 3)).tolist() == [0, 0]
