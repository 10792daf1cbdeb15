"""The task: mIoU beside scikit-learn's, the bootstrap beside repeated images, worst cases, and what preflight finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score

from robustbench_lab.errors import SkipCell
from robustbench_lab.records import Finding, Outcomes
from robustbench_lab.tasks.class_masks import IGNORED
from robustbench_lab.tasks.resampled_images import resampled_counts
from robustbench_lab.tasks.segmentation import (
    Segmentation,
    clean_miou,
    clean_pixel_accuracy,
    robust_miou,
    robust_pixel_accuracy,
)
from robustbench_lab.tasks.segmentation_objectives import Untargeted

TASK = Segmentation()
CLASSES = 4


def maps(seed: int, images: int = 6, side: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `[N, 4, H, W]` that are right on most pixels, and masks of which a fifth of the pixels does not count."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, CLASSES, side, side, generator=generator)
    noise = torch.randn(logits.shape, generator=generator)
    masks = (logits + noise).argmax(1)
    return logits, masks.masked_fill(torch.rand(masks.shape, generator=generator) < 0.2, IGNORED)


def outcomes_of(clean: torch.Tensor, attacked: torch.Tensor, masks: torch.Tensor) -> Outcomes:
    measured = [
        {**{name: value.numpy() for name, value in TASK.measure(one, masks).items()}, "damage": damage.numpy()}
        for one in (clean, attacked)
        for damage in [Untargeted().damage(one, masks)]
    ]
    intact = TASK.intact(clean, masks).numpy()
    robust = intact & TASK.intact(attacked, masks).numpy()
    distance = np.where(robust, np.nan, 1).astype(np.float32)
    return Outcomes(intact, robust, distance, TASK.columns(*measured))


def reference(logits: torch.Tensor, masks: torch.Tensor) -> tuple[float, float]:
    """scikit-learn's mean IoU of the classes that are there or predicted, and its accuracy."""
    counts = masks != IGNORED
    truth, made = masks[counts].numpy(), logits.argmax(1)[counts].numpy()
    return float(jaccard_score(truth, made, average="macro", zero_division=0)), float(accuracy_score(truth, made))


@given(seed=st.integers(0, 10_000), images=st.integers(1, 6), shift=st.integers(0, 3))
def test_metrics_are_those_of_scikit_learn(seed: int, images: int, shift: int) -> None:
    logits, masks = maps(seed, images)
    attacked = logits.roll(shift, dims=1)
    outcomes = outcomes_of(logits, attacked, masks)
    for made, iou, accuracy in (
        (logits, clean_miou, clean_pixel_accuracy),
        (attacked, robust_miou, robust_pixel_accuracy),
    ):
        assert (iou(outcomes).value, accuracy(outcomes).value) == pytest.approx(reference(made, masks))


def test_mean_iou_of_a_map_made_by_hand() -> None:
    masks = torch.tensor([[[0, 0, 1, 1], [0, 0, IGNORED, 2]]])
    made = torch.tensor([[[0, 0, 1, 0], [0, 1, 1, 2]]])
    logits = torch.nn.functional.one_hot(made, CLASSES).permute(0, 3, 1, 2).float()
    # Class 0: 3 of 5, class 1: 1 of 3, class 2: 1 of 1, class 3 is neither there nor predicted.
    assert clean_miou(outcomes_of(logits, logits, masks)).value == pytest.approx((3 / 5 + 1 / 3 + 1) / 3)
    assert clean_pixel_accuracy(outcomes_of(logits, logits, masks)).value == pytest.approx(5 / 7)


def test_replicates_are_the_mean_iou_of_repeated_images_and_intervals_hold_the_value() -> None:
    logits, masks = maps(3)
    outcomes = outcomes_of(logits, logits.roll(1, dims=1), masks)
    drawn = resampled_counts(len(masks))
    replicates = TASK.replicates(outcomes)
    for row in (0, 7, 999):
        again = torch.from_numpy(np.repeat(np.arange(len(masks)), drawn[row]))
        assert replicates[row] == pytest.approx(reference(logits.roll(1, dims=1)[again], masks[again])[0])
    for metric in (clean_miou, robust_miou, clean_pixel_accuracy, robust_pixel_accuracy):
        one = metric(outcomes)
        assert 0 <= one.low <= one.value <= one.high <= 1
        assert one.low < one.high


def test_where_no_pixel_counts_there_is_no_metric_and_nothing_is_broken() -> None:
    logits, masks = maps(0, 2)
    outcomes = outcomes_of(logits, logits.roll(1, dims=1), torch.full_like(masks, IGNORED))
    assert np.isnan(robust_miou(outcomes).value)
    assert np.isnan(clean_pixel_accuracy(outcomes).value)
    assert outcomes.robust.all()


def test_pixels_that_do_not_count_and_pixels_without_a_decision_are_predicted_nowhere() -> None:
    logits, masks = maps(1)
    logits[:, :, 0] = torch.nan
    measured = TASK.measure(logits, masks)
    counts = masks != IGNORED
    assert torch.equal(measured["truth"].sum(1), counts.sum((1, 2)).int())
    assert torch.equal(measured["predicted"].sum(1), counts[:, 1:].sum((1, 2)).int())
    assert bool((measured["right"] <= measured["truth"]).all())


@given(seed=st.integers(0, 1000), wrong=st.integers(90, 100))
def test_an_image_is_broken_from_99_of_100_wrong_pixels(seed: int, wrong: int) -> None:
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    masks = torch.zeros(1, 10, 12, dtype=torch.uint8)
    masks[:, :, 10:] = IGNORED
    logits = torch.zeros(1, 2, 10, 12)
    logits[:, 0] = 1
    logits[0, 1, :, :10] = 2.0 * (order < wrong).view(10, 10)
    assert TASK.intact(logits, masks).tolist() == [wrong < 99]
    assert Untargeted().damage(logits, masks).item() == pytest.approx(wrong / 100)


def test_the_worst_case_takes_the_worst_attack_of_each_image_and_is_never_above_a_single_attack() -> None:
    for seed in range(20):
        logits, masks = maps(seed)
        attacks = [outcomes_of(logits, maps(1000 + 10 * seed + other)[0], masks) for other in range(3)]
        worst = TASK.worst_case(attacks)
        assert robust_miou(worst).value <= min(robust_miou(one).value for one in attacks)
        assert clean_miou(worst) == clean_miou(attacks[0])
        damage = np.stack([one.columns["damage"] for one in attacks])
        if not any(robust_miou(worst).value == robust_miou(one).value for one in attacks):
            assert np.array_equal(worst.columns["damage"], damage.max(axis=0))


def findings(model_output: object, masks: object, classes: int | None = CLASSES) -> list[Finding]:
    return TASK.examine(TASK.kept(model_output), masks, classes)


LOGITS, MASKS = maps(5)


@pytest.mark.parametrize(
    ("made", "masks", "said"),
    [
        (LOGITS.mean((2, 3)), MASKS, "logits [N, K, H, W]; this model returns torch.float32 of shape [6, 4]"),
        (LOGITS.argmax(1), MASKS, "returns torch.int64"),
        ({"out": LOGITS}, MASKS, "returns dict"),
        (LOGITS[:, :1], MASKS, "logits [N, K, H, W]"),
        (LOGITS[:, :, ::2], MASKS, "the model's maps are 3x5, the masks 5x5"),
        (LOGITS[:, :2], MASKS, "a mask holds class 3, but the model has 2 classes"),
        (LOGITS, MASKS.masked_fill(MASKS == 1, -1), "a mask holds class -1"),
        (LOGITS, MASKS.float(), "masks must be integers [N, H, W]"),
        (LOGITS, MASKS[:, 0], "masks must be integers [N, H, W]"),
        (LOGITS.masked_fill(LOGITS > 2, torch.nan), MASKS, "NaN or infinite logits"),
    ],
)
def test_preflight_rules_out(made: object, masks: object, said: str) -> None:
    (finding,) = findings(made, masks)
    assert finding.severity == "fatal"
    assert said in finding.message


def test_preflight_suspects_probabilities_and_another_number_of_classes() -> None:
    assert [one.code for one in findings(LOGITS.softmax(1), MASKS)] == ["probabilities"]
    assert [one.code for one in findings(LOGITS, MASKS, 7)] == ["class-count"]
    assert findings(LOGITS, MASKS) == []


def test_a_mask_with_an_unknown_class_that_preflight_has_not_seen_skips_the_cell() -> None:
    with pytest.raises(SkipCell, match="class 9, but the model has 4"):
        TASK.measure(LOGITS, MASKS.clone().index_fill_(1, torch.tensor([2]), 9))
