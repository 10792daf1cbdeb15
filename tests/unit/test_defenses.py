"""Defenses: what they do to an input, and what gradient they give."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images
from torch import nn

from rbl_defenses.bit_depth import bit_depth
from rbl_defenses.differentiable_jpeg import differentiable_jpeg
from rbl_defenses.gaussian_noise import gaussian_noise
from rbl_defenses.jpeg import jpeg, recompressed
from rbl_defenses.lgs import lgs
from rbl_defenses.median import median
from rbl_defenses.resize_pad import resize_pad, resized_and_shifted
from robustbench_lab.contracts import GradientKind
from robustbench_lab.errors import SkipCell
from robustbench_lab.plugin_tools.moved_boxes import moved_back
from robustbench_lab.testing.bright_squares import BrightSquares, bright_squares
from robustbench_lab.testing.component_contracts import check_detector_defense
from robustbench_lab.testing.detector_contract import check_detector

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@given(bits=st.integers(1, 8))
def test_bit_depth_leaves_two_to_the_bits_levels_and_the_nearest_one(bits: int) -> None:
    made = bit_depth(nn.Identity(), bits=bits)(IMAGES)
    levels = torch.linspace(0, 1, 2**bits)
    distance = (made[..., None] - levels).abs().amin(-1)
    assert distance.max() < 1e-6
    assert (made - IMAGES).abs().max() <= 0.5 / (2**bits - 1) + 1e-6


def test_rounding_is_taken_as_the_identity_backwards() -> None:
    leaf = IMAGES.clone().requires_grad_()
    weights = torch.randn_like(IMAGES)
    (bit_depth(nn.Identity())(leaf) * weights).sum().backward()
    torch.testing.assert_close(leaf.grad, weights)


def test_median_is_scipys_median_filter() -> None:
    made = median(nn.Identity(), size=3)(IMAGES)
    expected = scipy.ndimage.median_filter(IMAGES.numpy(), size=(1, 1, 3, 3), mode="mirror")
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_of_high_quality_changes_smooth_images_little_and_of_low_quality_more(channels: int) -> None:
    ramp = torch.linspace(0, 1, 16).expand(2, channels, 16, 16).contiguous()
    fine, coarse = jpeg(nn.Identity(), quality=95)(ramp), jpeg(nn.Identity(), quality=1)(ramp)
    assert fine.shape == ramp.shape
    assert (fine - ramp).abs().mean() < 0.02 < (coarse - ramp).abs().mean()


@pytest.mark.parametrize("quality", [30, 75])
@pytest.mark.parametrize("colour", [True, False], ids=["colour", "grey"])
def test_jpeg_with_a_gradient_is_near_to_the_codec(quality: int, colour: bool) -> None:
    photo = torch.from_numpy(load_sample_images().images[0][100:237, 200:331].copy()).permute(2, 0, 1)[None] / 255
    photo = photo if colour else photo.mean(1, keepdim=True)
    made, codec = differentiable_jpeg(photo, quality), recompressed(photo, quality)
    assert made.shape == photo.shape
    assert (made - codec).abs().mean() < 0.5 * (photo - codec).abs().mean()
    assert (made - codec).abs().mean() < 3 / 255  # the codec smooths the colours that it enlarges


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_of_jpeg_is_that_of_the_codec_with_smoothed_rounding(channels: int) -> None:
    images = torch.rand(1, channels, 9, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = 0.3 + 0.4 * images  # away from 0 and 1, where pixels are clipped
    assert torch.autograd.gradcheck(lambda x: differentiable_jpeg(x, 60), images.requires_grad_(), eps=1e-7, atol=1e-4)
    weights = torch.randn_like(images)
    (wanted,) = torch.autograd.grad((differentiable_jpeg(images, 60) * weights).sum(), images)
    (given_one,) = torch.autograd.grad((jpeg(nn.Identity(), quality=60)(images) * weights).sum(), images)
    torch.testing.assert_close(given_one, wanted)
    with torch.no_grad():
        torch.testing.assert_close(jpeg(nn.Identity(), quality=60)(images), recompressed(images, 60))


def test_jpeg_refuses_what_is_no_image_in_one_line() -> None:
    with pytest.raises(SkipCell, match=r"jpeg needs grey or colour images"):
        jpeg(nn.Identity())(torch.rand(2, 5, 8, 8))


def test_gaussian_noise_is_fresh_at_every_pass_and_of_the_size_asked_for() -> None:
    defended = gaussian_noise(nn.Identity(), sigma=0.25)
    first, second = defended(IMAGES) - IMAGES, defended(IMAGES) - IMAGES
    assert not torch.equal(first, second)
    assert float(first.std()) == pytest.approx(0.25, rel=0.1)


# ---------------------------------------------------------------- random resizing and padding


@given(top=st.integers(0, 6), left=st.integers(0, 6))
def test_at_full_size_an_image_is_copied_to_its_place_on_the_canvas(top: int, left: int) -> None:
    shift = torch.tensor([[float(left), float(top)]]).expand(3, 2)
    made = resized_and_shifted(IMAGES, torch.ones(3), shift, (22, 22))
    expected = torch.nn.functional.pad(IMAGES, (left, 6 - left, top, 6 - top))
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)


@given(scale=st.floats(0.5, 1.5), right=st.floats(0, 5), down=st.floats(0, 5))
def test_a_pixel_is_moved_to_its_place_times_the_scale_plus_the_shift(scale: float, right: float, down: float) -> None:
    y, x = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(20) + 0.5, indexing="ij")
    ramps = torch.stack([x, y])[None]  # bilinear interpolation is exact on them
    made = resized_and_shifted(ramps, torch.tensor([scale]), torch.tensor([[right, down]]), (30, 40))[0]
    there_y, there_x = torch.meshgrid(torch.arange(30) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    from_x, from_y = (there_x - right) / scale, (there_y - down) / scale
    inside = (from_x > 0.5) & (from_x < 19.5) & (from_y > 0.5) & (from_y < 15.5)
    assert inside.any()
    torch.testing.assert_close(made[0][inside], from_x[inside], atol=1e-3, rtol=0)
    torch.testing.assert_close(made[1][inside], from_y[inside], atol=1e-3, rtol=0)
    outside = (from_x < -0.5) | (from_x > 20.5) | (from_y < -0.5) | (from_y > 16.5)
    assert (made[:, outside] == 0).all()


@pytest.mark.parametrize(("smallest", "canvas"), [(0.5, 1.0), (0.903, 1.107), (0.8, 0.7)])
def test_an_image_is_whole_on_the_canvas_at_a_size_of_its_own(smallest: float, canvas: float) -> None:
    white = torch.ones(200, 1, 40, 30)
    made = resize_pad(nn.Identity(), smallest=smallest, canvas=canvas)(white)
    assert made.shape == (200, 1, round(canvas * 40), round(canvas * 30))
    share = made.mean((1, 2, 3))
    assert share.min() >= smallest**2 * 0.95
    assert share.max() <= 1
    assert share.unique().numel() > 150
    assert share.std() > 0.2 * (1 - smallest**2)


def test_at_its_largest_the_canvas_is_the_image_itself() -> None:
    torch.testing.assert_close(resize_pad(nn.Identity(), smallest=1.0)(IMAGES), IMAGES, atol=1e-4, rtol=0)


def test_what_is_no_image_is_refused_in_one_line() -> None:
    for defend in (resize_pad, lgs):
        with pytest.raises(SkipCell, match="needs images"):
            defend(nn.Identity())(torch.rand(2, 5))


def test_boxes_candidates_and_training_loss_are_those_of_the_image_before() -> None:
    images, boxes = bright_squares(5)
    scale, shift = torch.linspace(0.7, 1.2, 5), torch.linspace(0, 8, 10).reshape(5, 2)
    moved = BrightSquares()(resized_and_shifted(images, scale, shift, (40, 50)))
    corners, factor = shift.repeat(1, 2)[:, None], scale[:, None, None]
    back = moved_back(moved, scale, shift)
    assert back.candidates is not None
    torch.testing.assert_close(back.candidates * factor + corners, moved.candidates)
    labels = torch.zeros(5, 1, dtype=torch.int64)
    torch.testing.assert_close(back.loss_of(boxes, labels), moved.loss_of(boxes * factor + corners, labels))
    assert torch.equal(back.detections["scores"], moved.detections["scores"])
    there = back.detections["scores"] > 0
    restored = (back.detections["boxes"] * factor + corners)[there]
    torch.testing.assert_close(restored, moved.detections["boxes"][there], atol=1e-4, rtol=0)
    assert (back.detections["boxes"][~there] == 0).all()


# ---------------------------------------------------------------- local gradients smoothing


def smoothed_by_definition(
    image: np.ndarray, window: int, overlap: int, threshold: float, strength: float
) -> np.ndarray:
    """One image `[C, H, W]`, window by window and pixel by pixel."""
    grey = image.mean(0)
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, :-1], down[:-1] = np.diff(grey, axis=1), np.diff(grey, axis=0)
    length = np.hypot(across, down)
    length = (length - length.min()) / (length.max() - length.min())
    height, width = grey.shape
    kept = np.zeros_like(length)
    tops = [top for top in range(0, height, window - overlap) if top + window < height] + [height - window]
    lefts = [left for left in range(0, width, window - overlap) if left + window < width] + [width - window]
    for top in tops:
        for left in lefts:
            part = (slice(top, top + window), slice(left, left + window))
            if length[part].mean() > threshold:
                kept[part] = length[part]
    return image * (1 - np.clip(strength * kept, 0, 1))


@given(seed=st.integers(0, 1000), window=st.integers(3, 9), overlap=st.integers(0, 2), height=st.integers(9, 24))
def test_lgs_is_the_papers_definition(seed: int, window: int, overlap: int, height: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = 0.3 * torch.rand(1, 3, height, 17, generator=generator)
    image[:, :, :7, :7] = torch.rand(1, 3, 7, 7, generator=generator)
    defended = lgs(nn.Identity(), window=window, overlap=overlap, threshold=0.25)(image)
    expected = smoothed_by_definition(image[0].double().numpy(), window, overlap, 0.25, 2.3)
    np.testing.assert_allclose(defended[0].numpy(), expected, atol=1e-4)


def test_lgs_darkens_a_patch_of_noise_and_leaves_a_smooth_image_alone() -> None:
    smooth = torch.linspace(0.2, 0.8, 64).expand(1, 3, 64, 64).clone()
    patched = smooth.clone()
    patched[:, :, 20:50, 20:50] = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    made = lgs(nn.Identity())(patched)
    assert made[:, :, 22:48, 22:48].mean() < 0.5 * patched[:, :, 22:48, 22:48].mean()
    assert torch.equal(made[:, :, :5], patched[:, :, :5])


def test_the_gradient_through_lgs_is_that_of_finite_differences() -> None:
    images, boxes = bright_squares(3, channels=2)
    assert check_detector(lgs(BrightSquares()), images, boxes, torch.zeros(3, 1, dtype=torch.int64)) == []


# ---------------------------------------------------------------- detectors


def test_the_contract_catches_a_defense_that_moves_images_and_leaves_boxes_where_they_are() -> None:
    class Shifted(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return BrightSquares()(x.roll(6, dims=3))

    assert "do not fit the objects" in " ".join(check_detector_defense(Shifted(), GradientKind.EXACT))


def test_the_contract_catches_a_defense_that_keeps_the_gradient_of_the_training_loss() -> None:
    class Rounded(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return BrightSquares()((x * 8).round() / 8)

    assert "none of the training loss reaches" in " ".join(check_detector_defense(Rounded(), GradientKind.EXACT))
    assert check_detector_defense(Rounded(), GradientKind.NONE) == []
