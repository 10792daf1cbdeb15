"""Defenses: what they do to an input, and what gradient they give."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rbl_defenses.bit_depth import bit_depth
from rbl_defenses.gaussian_noise import gaussian_noise
from rbl_defenses.jpeg import jpeg
from rbl_defenses.median import median
from robustbench_lab.errors import SkipCell

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@given(bits=st.integers(1, 8))
def test_bit_depth_leaves_two_to_the_bits_levels_and_the_nearest_one(bits: int) -> None:
    made = bit_depth(nn.Identity(), bits=bits)(IMAGES)
    levels = torch.linspace(0, 1, 2**bits)
    distance = (made[..., None] - levels).abs().amin(-1)
    assert distance.max() < 1e-6
    assert (made - IMAGES).abs().max() <= 0.5 / (2**bits - 1) + 1e-6


@pytest.mark.parametrize("defend", [bit_depth, jpeg])
def test_a_step_without_gradient_is_taken_as_the_identity_backwards(defend: object) -> None:
    leaf = IMAGES.clone().requires_grad_()
    weights = torch.randn_like(IMAGES)
    (defend(nn.Identity())(leaf) * weights).sum().backward()
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


def test_jpeg_refuses_what_is_no_image_in_one_line() -> None:
    with pytest.raises(SkipCell, match=r"jpeg needs grey or colour images"):
        jpeg(nn.Identity())(torch.rand(2, 5, 8, 8))


def test_gaussian_noise_is_fresh_at_every_pass_and_of_the_size_asked_for() -> None:
    defended = gaussian_noise(nn.Identity(), sigma=0.25)
    first, second = defended(IMAGES) - IMAGES, defended(IMAGES) - IMAGES
    assert not torch.equal(first, second)
    assert float(first.std()) == pytest.approx(0.25, rel=0.1)
