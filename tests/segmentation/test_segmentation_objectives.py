"""Losses pixel by pixel, as the papers write them; goals and damage."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.passes.model_queries import ModelQueries
from robustbench_lab.passes.pass_counter import PassCounter
from robustbench_lab.tasks import segmentation_objectives
from robustbench_lab.tasks.class_masks import IGNORED, predicted_classes
from robustbench_lab.tasks.segmentation_objectives import (
    LOSSES,
    SegmentationObjective,
    Targeted,
    Untargeted,
    weighted_cross_entropy,
)

Pixel = Callable[[torch.Tensor, int], float]
"""The loss of one pixel: its logits `[K]` and its class."""
CLASSES = 5
seeds = st.integers(0, 10_000)


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `[2, 5, 3, 4]`, and masks in which some pixels do not count."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, CLASSES, 3, 4, generator=generator)
    masks = torch.where(torch.rand(2, 3, 4, generator=generator) < 0.5, logits.argmax(1), 2)
    return logits, masks.masked_fill(torch.rand(masks.shape, generator=generator) < 0.2, IGNORED).byte()


def by_hand(logits: torch.Tensor, masks: torch.Tensor, pixel: Pixel) -> list[float]:
    """The mean over the pixels that count, one after another."""
    means = []
    for image, mask in zip(logits, masks, strict=True):
        losses = [
            pixel(image[:, row, column], int(mask[row, column]))
            for row in range(mask.shape[0])
            for column in range(mask.shape[1])
            if mask[row, column] != IGNORED
        ]
        means.append(sum(losses) / max(1, len(losses)))
    return means


def entropy(pixel: torch.Tensor, own: int) -> float:
    return -float(pixel.log_softmax(0)[own])


def right(pixel: torch.Tensor, own: int) -> bool:
    return int(pixel.argmax()) == own


def one_hot(own: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(own), CLASSES).double()


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.double(), other, dim=0))


PIXELS: dict[str, Pixel] = {
    "ce": entropy,
    "masked-ce": lambda pixel, own: right(pixel, own) * entropy(pixel, own),
    "js": lambda pixel, own: jensenshannon(pixel.double().softmax(0), one_hot(own)) ** 2,
    "masked-spherical": lambda pixel, own: -right(pixel, own) * cosine(pixel, one_hot(own)),
    "cospgd": lambda pixel, own: cosine(pixel.softmax(0), one_hot(own)) * entropy(pixel, own),
    "dag": lambda pixel, own: right(pixel, own) * float(pixel.sort().values[-2] - pixel[own]),
}


def test_every_loss_is_compared() -> None:
    assert set(PIXELS) == set(LOSSES)


@given(seed=seeds, name=st.sampled_from(sorted(PIXELS)))
def test_a_loss_is_its_formula_pixel_by_pixel(seed: int, name: str) -> None:
    logits, masks = problem(seed)
    expected = by_hand(logits, masks, PIXELS[name])
    assert Untargeted().loss(name, logits, masks).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(seed=seeds, share=st.floats(0, 0.5))
def test_segpgds_loss_weighs_right_and_wrong_pixels(seed: int, share: float) -> None:
    logits, masks = problem(seed)

    def pixel(values: torch.Tensor, own: int) -> float:
        return (1 - share if right(values, own) else share) * entropy(values, own)

    made = weighted_cross_entropy(logits, masks, share)
    assert made.tolist() == pytest.approx(by_hand(logits, masks, pixel), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_that_do_not_count_have_no_gradient_and_all_losses_rise_towards_the_wrong_classes(name: str) -> None:
    logits, masks = problem(0)
    leaf = logits.double().requires_grad_()
    loss = Untargeted().loss(name, leaf, masks)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    aside = (masks == IGNORED)[:, None].expand_as(gradient)
    assert bool(aside.any())
    assert not bool(gradient[aside].any())
    assert bool(gradient.isfinite().all())
    further = Untargeted().loss(name, leaf.detach() + 1e-3 * gradient, masks)
    assert bool((further > loss).all())


def test_without_annotations_the_goal_is_what_the_model_makes_of_the_clean_image() -> None:
    logits, masks = problem(1)
    goal = Untargeted(labels="self").prepare(logits, masks)
    assert torch.equal(goal == IGNORED, masks == IGNORED)
    assert Untargeted().damage(logits, goal).tolist() == [0, 0]
    assert torch.equal(Untargeted().prepare(logits, masks), masks)


def test_a_targeted_goal_leaves_out_the_pixels_that_are_of_its_class() -> None:
    logits, masks = problem(2)
    goal = Targeted(target=2).prepare(logits, masks)
    assert torch.equal(goal == IGNORED, (masks == IGNORED) | (masks == 2))
    everywhere = torch.nn.functional.one_hot(torch.full((2, 3, 4), 2), CLASSES).permute(0, 3, 1, 2).float()
    assert Targeted(target=2).damage(everywhere, goal).tolist() == [1, 1]
    assert Targeted(target=2).succeeded(everywhere, goal).tolist() == [True, True]
    assert Targeted(target=2).loss(None, everywhere, goal)[0].item() == pytest.approx(1 - math.log(math.e + 4))
    with pytest.raises(SkipCell, match=r"target class 7 is outside the model's 0\.\.4"):
        Targeted(target=7).prepare(logits, masks)


def test_unknown_losses_are_refused() -> None:
    logits, masks = problem(3)
    with pytest.raises(UsageError, match=r"no loss 'masked_ce' for segmentation.*'masked-ce'"):
        Untargeted().loss("masked_ce", logits, masks)
    with pytest.raises(UsageError, match="for targeted segmentation"):
        Targeted().loss("js", logits, masks)


@given(seed=seeds, form=st.sampled_from([torch.contiguous_format, torch.channels_last]))
def test_the_predicted_class_is_the_first_of_the_highest_and_none_where_a_logit_is_nan(
    seed: int, form: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-1, 2, (2, CLASSES, 3, 4), generator=generator).float()  # so that many are equal
    logits[torch.rand(logits.shape, generator=generator) < 0.1] = torch.nan
    logits[torch.rand(logits.shape, generator=generator) < 0.1] = -torch.inf
    expected = torch.where(logits.isnan().any(1), -1, logits.argmax(1))
    assert torch.equal(predicted_classes(logits.contiguous(memory_format=form)), expected)


@pytest.mark.parametrize("objective", [Untargeted(), Targeted(target=2)])
def test_classes_are_looked_up_once_for_success_and_damage(
    objective: SegmentationObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(segmentation_objectives, "predicted_classes", lambda made: looked.append(1) or made.argmax(1))
    logits, masks = problem(0)
    queries = ModelQueries(PassCounter(torch.nn.Identity()), objective, eot=1, needs_success=False)
    _, judgement = queries.slope(logits, objective.prepare(logits, masks), None, (), judged=True)
    assert len(looked) == 1
    assert torch.equal(judgement.damage, objective.damage(logits, objective.prepare(logits, masks)))
