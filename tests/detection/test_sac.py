"""Segment and complete: completion by its definition, the gradient, and what the bundled segmenter is worth."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

from rbl_defenses.patch_segmenter import PatchSegmenter, patch_segmenter
from rbl_defenses.sac import TOLERANCES, SegmentAndComplete, completed, sac
from rbl_defenses.train_patch_segmenter import (
    EVALUATED,
    KINDS,
    RECIPE,
    SCENES,
    losses_of,
    quality,
    train,
    training_scenes,
    with_noise,
)
from rbl_reference.scene_training import CHECKED_STEPS, fold_batch_norm, insert_batch_norm
from rbl_reference.scenes import DigitScenes
from robustbench_lab.contracts import Samples
from robustbench_lab.errors import SkipCell


@pytest.fixture(scope="module")
def scenes() -> Samples:
    return DigitScenes(scenes=20).load(range(20))


def by_definition(found: Tensor, sides: list[int]) -> Tensor:
    """One image's squares, one after another, bool `[H, W]`."""
    height, width = found.shape
    union = torch.zeros_like(found)
    for tolerance in TOLERANCES:
        left, near = found & ~union, torch.zeros_like(found)
        for side in sides:
            reach = side // 2
            for top in range(height - side + 1):
                for start in range(width - side + 1):
                    square = torch.zeros_like(found)
                    square[top : top + side, start : start + side] = True
                    around = torch.zeros_like(found)
                    around[max(0, top - reach) : top + side + reach, max(0, start - reach) : start + side + reach] = (
                        True
                    )
                    if ((left != square) & around).sum() <= tolerance * side * side:
                        near |= square
        union |= near
    return union


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), density=st.sampled_from([0.02, 0.1, 0.4, 0.9]), size=st.integers(0, 6))
def test_completion_is_the_union_of_near_squares(seed: int, density: float, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(2, 1, 11, 13, generator=generator) < density
    found[0, 0, 3 : 3 + size, 2 : 2 + size] = True
    made = completed(found, [3, 4, 7])
    for one, mask in zip(made, found, strict=True):
        assert torch.equal(one[0].bool(), by_definition(mask[0], [3, 4, 7]))


def test_two_patches_with_holes_become_whole_and_single_pixels_are_no_patch() -> None:
    whole = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
    whole[0, 0, 2:10, 3:11] = whole[0, 0, 22:32, 20:30] = True
    found = whole.clone()
    found[0, 0, 4:6, 4:8] = found[0, 0, 30:32, 20:30] = False
    made = completed(found, [8, 10])
    assert made[whole].all()
    assert not made[nn.functional.max_pool2d(whole.float(), 5, 1, 2) == 0].any()  # at most two pixels too many
    few = torch.zeros_like(whole)
    few[0, 0, ::9, ::9] = True
    assert not completed(few, [8, 10]).any()


class Bright(nn.Module):
    """Takes bright red for a patch."""

    def forward(self, images: Tensor) -> Tensor:
        return 8 * (images[:, :1] - 0.5)


def test_what_is_found_is_black_afterwards_and_all_else_as_it_was() -> None:
    images = 0.4 * torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    images[0, :, 6:14, 8:16] = 0.9
    made = SegmentAndComplete(nn.Identity(), Bright(), (1 / 3,))(images)
    assert not made[0, :, 6:14, 8:16].any()
    made[0, :, 6:14, 8:16] = images[0, :, 6:14, 8:16]
    torch.testing.assert_close(made, images)


def test_the_gradient_takes_rounding_and_completing_as_the_identity() -> None:
    images = 0.4 * torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    images[0, :, 6:14, 8:16] = 0.9
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    leaf = images.clone().requires_grad_()
    (SegmentAndComplete(nn.Identity(), Bright(), (1 / 3,))(leaf) * weights).sum().backward()
    mask = torch.zeros_like(images)
    mask[0, :, 6:14, 8:16] = 1
    expected = weights * (1 - mask)
    chance = (8 * (images[:, :1] - 0.5)).sigmoid()
    expected[:, :1] -= (weights * images).sum(1, keepdim=True) * 8 * chance * (1 - chance)
    torch.testing.assert_close(leaf.grad, expected)


def test_grey_images_and_odd_sides_will_do_and_what_is_no_image_is_refused() -> None:
    assert sac(nn.Identity())(torch.rand(2, 1, 27, 33)).shape == (2, 1, 27, 33)
    with pytest.raises(SkipCell, match="needs images"):
        sac(nn.Identity())(torch.rand(2, 5))


# ---------------------------------------------------------------- the bundled segmenter


def weights() -> Path:
    return Path(str(files("rbl_defenses") / "weights" / "patch-segmenter.safetensors"))


def recorded() -> dict[str, Any]:
    with safe_open(weights(), framework="pt") as file:
        description: dict[str, Any] = json.loads(file.metadata()["recipe"])
    return description


def test_noise_is_blacked_out_and_clean_scenes_are_left_alone(scenes: Samples) -> None:
    torch.manual_seed(0)
    patched = with_noise(scenes.inputs, clean=0.0)
    there = patched.window.expand_as(patched.images) > 0
    left = sac(nn.Identity())(patched.images)
    assert (left[there] == 0).float().mean() > 0.9
    # Squares reach a pixel or two beyond the patch.
    assert (left[~there] != patched.images[~there]).float().mean() < 0.08
    assert (sac(nn.Identity())(scenes.inputs) != scenes.inputs).float().mean() < 0.02


def test_batch_normalisation_is_folded_without_a_change_of_the_function() -> None:
    torch.manual_seed(0)
    model = PatchSegmenter()
    insert_batch_norm(model)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(4, 3, 32, 32))
        images = torch.rand(2, 3, 32, 32)
        before = model.eval()(images)
        fold_batch_norm(model)
        torch.testing.assert_close(model(images), before, atol=1e-4, rtol=1e-3)
    assert list(model.state_dict()) == list(PatchSegmenter().state_dict())


def test_the_weights_are_small_and_carry_the_recipe_as_it_is_and_figures_measured_again() -> None:
    assert weights().stat().st_size < 500_000
    recipe = {**asdict(RECIPE), "scenes": SCENES}
    assert {key: recorded()[key] for key in recipe} == recipe
    samples = DigitScenes(scenes=EVALUATED).load(range(EVALUATED))
    assert quality(patch_segmenter(), samples, RECIPE) == pytest.approx(recorded()["quality"], abs=0.03)


# Kernels add in another order on another CPU, and training carries the last bits on; in a few steps not far.
def test_the_recipe_still_begins_as_it_did() -> None:
    _, losses = train(RECIPE, training_scenes(), CHECKED_STEPS)
    assert losses == pytest.approx(recorded()["first_losses"], rel=0.02)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_training_again_gives_a_segmenter_as_good_as_the_bundled_one() -> None:
    again, _ = train(RECIPE, training_scenes())
    samples = DigitScenes(scenes=EVALUATED).load(range(EVALUATED))
    made, bundled = quality(again, samples, RECIPE), recorded()["quality"]
    assert made["noise"] == pytest.approx(bundled["noise"], abs=0.05)
    assert made["clean"] < bundled["clean"] + 0.02
    assert all(made[kind] > bundled[kind] - 0.15 for kind in KINDS)


def test_losses_are_those_of_each_scene_alone(scenes: Samples) -> None:
    torch.manual_seed(0)
    patched = with_noise(scenes.inputs[:4], clean=0.5)
    model = patch_segmenter()
    with torch.no_grad():
        together = losses_of(model, patched)
        alone = [
            losses_of(model, type(patched)(patched.images[i : i + 1], patched.window[i : i + 1])) for i in range(4)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)
