"""A classifier's losses and goals, against formulas written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.objectives import Targeted, Untargeted, is_logits

quickly = settings(deadline=None, max_examples=60)

LOGITS = torch.tensor([[3.0, 1.0, -2.0, 0.5], [0.0, 4.0, 4.5, -1.0]])
LABELS = torch.tensor([0, 1])

finite = st.floats(-30, 30, allow_nan=False, width=32)
logit_rows = st.integers(3, 7).flatmap(
    lambda classes: st.lists(st.lists(finite, min_size=classes, max_size=classes), min_size=1, max_size=5)
)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits `[N, K]` of 3 or more classes, and true labels `[N]`."""
    logits = torch.tensor(draw(logit_rows))
    rows, classes = logits.shape
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    return logits, torch.tensor(labels)


def highest_other(row: list[float], label: int) -> float:
    return max(logit for position, logit in enumerate(row) if position != label)


# ---------------------------------------------------------------- losses


@quickly
@given(predictions())
def test_cross_entropy_is_the_negative_log_of_the_true_class_probability(made: tuple[Tensor, Tensor]) -> None:
    logits, labels = made
    by_hand = -torch.log_softmax(logits.double(), 1)[torch.arange(len(labels)), labels]
    torch.testing.assert_close(Untargeted().loss("ce", logits, labels).double(), by_hand, atol=1e-4, rtol=1e-4)


@quickly
@given(predictions())
def test_the_margin_is_the_highest_other_logit_minus_the_true_one(made: tuple[Tensor, Tensor]) -> None:
    logits, labels = made
    by_hand = [highest_other(row, y) - row[y] for row, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    torch.testing.assert_close(Untargeted().loss("margin", logits, labels), torch.tensor(by_hand))


@quickly
@given(predictions())
def test_dlr_is_the_margin_over_the_gap_between_the_first_and_third_logit(made: tuple[Tensor, Tensor]) -> None:
    """Croce & Hein 2020, eq. 6: -(z_y - max_{i != y} z_i) / (z_pi1 - z_pi3)."""
    logits, labels = made
    by_hand = []
    for row, y in zip(logits.tolist(), labels.tolist(), strict=True):
        ordered = sorted(row, reverse=True)
        by_hand.append(-(row[y] - highest_other(row, y)) / (ordered[0] - ordered[2] + 1e-12))
    torch.testing.assert_close(Untargeted().loss("dlr", logits, labels), torch.tensor(by_hand), rtol=1e-4, atol=1e-5)


def test_dlr_does_not_change_when_the_logits_are_shifted_and_scaled() -> None:
    once = Untargeted().loss("dlr", LOGITS, LABELS)
    torch.testing.assert_close(Untargeted().loss("dlr", 1e4 * LOGITS - 7, LABELS), once)
    assert once.tolist() == pytest.approx([-2 / 2.5, 0.5 / 4.5])


def test_the_usual_loss_is_cross_entropy() -> None:
    expected = F.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(Untargeted().loss(None, LOGITS, LABELS), expected)
    torch.testing.assert_close(Targeted().loss(None, LOGITS, LABELS), -expected)


@pytest.mark.parametrize("name", ["ce", "margin", "dlr"])
def test_the_loss_of_one_sample_does_not_depend_on_the_others(name: str) -> None:
    together = Untargeted().loss(name, LOGITS, LABELS)
    alone = [Untargeted().loss(name, LOGITS[[row]], LABELS[[row]]).item() for row in range(len(LOGITS))]
    assert together.tolist() == pytest.approx(alone)


@pytest.mark.parametrize("name", ["ce", "margin", "dlr"])
def test_a_targeted_adversary_lowers_the_loss_towards_its_goal(name: str) -> None:
    torch.testing.assert_close(Targeted().loss(name, LOGITS, LABELS), -Untargeted().loss(name, LOGITS, LABELS))


def test_an_unknown_loss_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"^there is no loss 'margn' for classifiers\. Did you mean 'margin'\?$"):
        Untargeted().loss("margn", LOGITS, LABELS)


def test_dlr_on_two_classes_skips_the_cell_and_names_another_loss() -> None:
    with pytest.raises(SkipCell, match=r"^the dlr loss needs at least 3 classes: use loss='margin'$"):
        Untargeted().loss("dlr", LOGITS[:, :2], LABELS)


# ---------------------------------------------------------------- success and damage


@quickly
@given(predictions())
def test_untargeted_success_is_a_wrong_prediction(made: tuple[Tensor, Tensor]) -> None:
    logits, labels = made
    assert torch.equal(Untargeted().succeeded(logits, labels), logits.argmax(1) != labels)


@quickly
@given(predictions())
def test_a_positive_margin_means_broken_and_a_negative_one_intact(made: tuple[Tensor, Tensor]) -> None:
    logits, labels = made
    damage, broken = Untargeted().damage(logits, labels), Untargeted().succeeded(logits, labels)
    assert bool((broken | (damage <= 0)).all())
    assert bool((~broken | (damage >= 0)).all())


@quickly
@given(predictions())
def test_targeted_success_is_the_prediction_of_the_goal(made: tuple[Tensor, Tensor]) -> None:
    logits, goal = made
    succeeded = Targeted().succeeded(logits, goal)
    assert torch.equal(succeeded, logits.argmax(1) == goal)
    assert bool((~succeeded | (Targeted().damage(logits, goal) >= 0)).all())


def test_nan_logits_are_no_decision_so_they_break_the_sample_but_reach_no_target() -> None:
    broken = torch.tensor([[math.nan, 5.0, 1.0], [9.0, 0.0, math.nan], [9.0, 0.0, 1.0]])
    labels = torch.tensor([0, 0, 0])
    assert Untargeted().succeeded(broken, labels).tolist() == [True, True, False]
    assert [Targeted().succeeded(broken, torch.full((3,), goal)).tolist() for goal in (0, 1, 2)] == [
        [False, False, True],
        [False, False, False],
        [False, False, False],
    ]


# ---------------------------------------------------------------- goals


def test_an_untargeted_adversary_aims_away_from_the_true_class() -> None:
    assert torch.equal(Untargeted().prepare(LOGITS, LABELS), LABELS)


def test_next_is_the_class_after_the_true_one_and_wraps_round() -> None:
    goal = Targeted("next").prepare(torch.zeros(4, 4), torch.tensor([0, 1, 2, 3]))
    assert goal.tolist() == [1, 2, 3, 0]


def test_least_likely_and_second_are_the_extremes_among_the_wrong_classes() -> None:
    # The true class of the second sample is its least likely one already, that of the third is not its likeliest.
    clean = torch.tensor([[3.0, 1.0, -2.0, 0.5], [0.0, -4.0, 4.5, -1.0], [7.0, 1.0, 6.0, 0.0]])
    labels = torch.tensor([0, 1, 2])
    assert Targeted("least-likely").prepare(clean, labels).tolist() == [2, 3, 3]
    assert Targeted("second").prepare(clean, labels).tolist() == [1, 2, 0]


def test_a_chosen_class_is_the_goal_and_its_own_samples_aim_at_the_next_one() -> None:
    goal = Targeted(3).prepare(torch.zeros(4, 4), torch.tensor([0, 1, 2, 3]))
    assert goal.tolist() == [3, 3, 3, 0]


@quickly
@given(predictions(), st.sampled_from(["next", "least-likely", "second", 0, 2]))
def test_no_goal_is_ever_the_true_class(made: tuple[Tensor, Tensor], target: int | str) -> None:
    logits, labels = made
    goal = Targeted(target).prepare(logits, labels)  # type: ignore[arg-type]  (Literal by name)
    assert goal.dtype == labels.dtype
    assert bool((goal != labels).all())
    assert bool(((goal >= 0) & (goal < logits.shape[1])).all())


@pytest.mark.parametrize("target", [4, -1])
def test_a_target_class_that_the_model_has_not_skips_the_cell(target: int) -> None:
    with pytest.raises(SkipCell, match=rf"^target class {target} is outside the model's 0\.\.3$"):
        Targeted(target).prepare(LOGITS, LABELS)


def test_a_single_class_has_nothing_to_aim_at() -> None:
    with pytest.raises(SkipCell, match=r"^a targeted objective needs at least 2 classes$"):
        Targeted().prepare(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (LOGITS, True),
        (LOGITS[0], False),
        (LOGITS[:, :, None], False),
        (LOGITS.long(), False),
        ({"logits": LOGITS}, False),
    ],
)
def test_logits_are_a_float_tensor_of_samples_by_classes(prediction: object, expected: bool) -> None:
    assert is_logits(prediction) is expected
