"""What the core knows of classifiers: the worst case per sample, the metrics, and what is wrong with a prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from robustbench_lab.records import Outcomes, Severity
from robustbench_lab.tasks.classification import Classification, clean_accuracy, robust_accuracy

quickly = settings(deadline=None, max_examples=60)

EPS = 0.125
BROKEN_AT = st.one_of(st.none(), st.floats(0, EPS, width=32).filter(lambda one: one > 0))
"""How far the adversarial input lies; None: the attack found none."""


def outcomes_of(correct: Sequence[bool], broken_at: Sequence[float | None]) -> Outcomes:
    """One attack's outcomes, as the audit makes them."""
    distance = [
        0.0 if not right else np.nan if at is None else at for right, at in zip(correct, broken_at, strict=True)
    ]
    robust = [right and at is None for right, at in zip(correct, broken_at, strict=True)]
    return Outcomes(np.array(correct), np.array(robust), np.array(distance, dtype=np.float32))


@st.composite
def several_attacks(draw: st.DrawFn) -> list[Outcomes]:
    """Outcomes of 1 to 5 attacks on the same 1 to 12 samples."""
    count = draw(st.integers(1, 12))
    correct = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    attacks = st.lists(BROKEN_AT, min_size=count, max_size=count).map(lambda at: outcomes_of(correct, at))
    return draw(st.lists(attacks, min_size=1, max_size=5))


@quickly
@given(several_attacks())
def test_a_sample_is_robust_only_if_no_attack_broke_it(attacks: list[Outcomes]) -> None:
    worst = Classification().worst_case(attacks)
    assert worst.robust.tolist() == [all(one) for one in zip(*(each.robust for each in attacks), strict=True)]
    assert np.array_equal(worst.clean_correct, attacks[0].clean_correct)
    assert worst.robust.dtype == worst.clean_correct.dtype == np.bool_


@quickly
@given(several_attacks())
def test_the_distance_is_the_smallest_at_which_any_attack_broke_the_sample(attacks: list[Outcomes]) -> None:
    worst = Classification().worst_case(attacks)
    assert worst.distance.dtype == np.float32
    for sample, distance in enumerate(worst.distance):
        reached = [float(one.distance[sample]) for one in attacks if not np.isnan(one.distance[sample])]
        if reached:
            assert distance == min(reached)
        else:
            assert np.isnan(distance)
    assert np.array_equal(np.isnan(worst.distance), worst.robust)


@quickly
@given(several_attacks())
def test_the_order_of_attacks_and_an_attack_given_twice_change_nothing(attacks: list[Outcomes]) -> None:
    worst = Classification().worst_case(attacks)
    again = Classification().worst_case([*attacks[::-1], attacks[0]])
    assert np.array_equal(again.robust, worst.robust)
    assert np.array_equal(again.distance, worst.distance, equal_nan=True)


def test_two_attacks_that_break_different_samples_break_both() -> None:
    """The mistake this guards against: the minimum of the two accuracies would be 2 of 3, not 1 of 3."""
    first = outcomes_of([True, True, True], [None, EPS, None])
    second = outcomes_of([True, True, True], [None, None, EPS])
    assert robust_accuracy(Classification().worst_case([first, second])).value == pytest.approx(1 / 3)


@quickly
@given(st.integers(1, 60), st.data())
def test_metrics_are_shares_of_all_samples_with_clopper_pearson_intervals(count: int, data: st.DataObject) -> None:
    clean = data.draw(st.integers(0, count))
    robust = data.draw(st.integers(0, clean))
    outcomes = Outcomes(np.arange(count) < clean, np.arange(count) < robust, np.zeros(count, dtype=np.float32))
    for estimate, hits in ((clean_accuracy(outcomes), clean), (robust_accuracy(outcomes), robust)):
        assert estimate.value == hits / count
        assert estimate.low == pytest.approx(beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0)
        assert estimate.high == pytest.approx(beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0)


# ---------------------------------------------------------------- what is wrong with clean predictions

SHARP = torch.eye(3).repeat(10, 1) * 8
LABELS = torch.arange(3).repeat(10)


def codes(prediction: object, targets: torch.Tensor = LABELS, classes: int | None = 3) -> list[tuple[str, Severity]]:
    return [(one.code, one.severity) for one in Classification().examine(prediction, targets, classes)]


def test_sound_logits_give_no_finding() -> None:
    assert codes(SHARP) == []
    assert Classification().intact(SHARP, LABELS).all()


@pytest.mark.parametrize(
    ("prediction", "code"),
    [
        (SHARP.unsqueeze(2), "not-logits"),
        ({"scores": SHARP}, "not-logits"),
        (SHARP.argmax(1), "not-logits"),
        (SHARP[:, :1], "one-class"),
        (SHARP[:, :2], "class-count"),
        (SHARP.masked_fill(SHARP > 0, torch.nan), "nan-logits"),
        (SHARP.masked_fill(SHARP > 0, torch.inf), "nan-logits"),
    ],
)
def test_a_prediction_that_no_attack_can_work_on_is_fatal(prediction: object, code: str) -> None:
    assert codes(prediction) == [(code, Severity.FATAL)]


def test_probabilities_and_another_number_of_classes_are_suspect() -> None:
    assert codes(SHARP.softmax(1)) == [("probabilities", Severity.SUSPECT)]
    assert codes(SHARP, classes=10) == [("class-count", Severity.SUSPECT)]
    assert codes(SHARP, classes=None) == []


def test_accuracy_at_chance_is_suspect_once_there_are_samples_enough_to_tell() -> None:
    shifted = (LABELS + 1) % 3
    assert codes(SHARP, shifted) == [("clean-accuracy-at-chance", Severity.SUSPECT)]
    assert codes(SHARP[:19], shifted[:19]) == []
