"""The patch threat model: the window's size, and the geometry of its region against brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.testing.known_models import HalfSpace, half_space_setting
from robustbench_lab.threat_models.patch import Patch

UNIT = Bounds()
SHAPE = (2, 6, 5)
SIDE = 3
EPS = SIDE**2 / 30


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def numbers(count: int = 6) -> SampleRng:
    return SampleRng.for_samples(0, "test", [str(index) for index in range(count)], torch.device("cpu"))


def windows() -> Iterator[Tensor]:
    """Every window as a mask `[H, W]`."""
    for top, left in itertools.product(range(SHAPE[1] - SIDE + 1), range(SHAPE[2] - SIDE + 1)):
        mask = torch.zeros(SHAPE[1:], dtype=torch.bool)
        mask[top : top + SIDE, left : left + SIDE] = True
        yield mask


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("eps", [0, 1, -0.1, 3, math.nan, math.inf])
def test_what_is_no_share_of_the_area_is_refused(eps: float) -> None:
    with pytest.raises(UsageError, match="give a number above 0 and below 1"):
        Patch(eps).check(UNIT)


def test_data_whose_range_is_open_is_refused() -> None:
    with pytest.raises(UsageError, match="range is open"):
        Patch(0.1).check(Bounds(-math.inf, math.inf))


@given(side=st.integers(1, 40), height=st.integers(1, 300), width=st.integers(1, 300))
def test_the_side_is_the_largest_within_the_share(side: int, height: int, width: int) -> None:
    eps = side**2 / (height * width)
    fits = min(side, height, width)
    assert Patch(eps).side(height, width) == fits
    assert Patch(float(torch.tensor(eps))).side(height, width) == fits
    assert Patch(eps * 1.01).side(height, width) in (fits, min(side + 1, height, width))


def test_a_share_below_one_pixel_is_skipped_with_a_reason() -> None:
    with pytest.raises(SkipCell, match="less than one pixel of an image 5x5"):
        Patch(0.03).side(5, 5)


def test_inputs_that_are_no_images_are_skipped_with_a_reason() -> None:
    with pytest.raises(SkipCell, match="for images"):
        Patch(0.1).around(torch.rand(3, 20), UNIT)


# ---------------------------------------------------------------- the region


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), changes=st.integers(0, 4))
def test_an_image_is_contained_if_and_only_if_one_window_holds_all_changes(seed: int, changes: int) -> None:
    clean = images(1, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    place = torch.randint(0, clean.numel(), (changes,), generator=generator)
    x = clean.flatten().index_fill(0, place, 0.5).reshape(clean.shape)
    changed = (x != clean).any(1)[0]
    allowed = any(not bool((changed & ~window).any()) for window in windows())
    region = Patch(EPS).around(clean, UNIT)
    assert bool(region.contains(x)) == allowed
    assert bool(region.distance(x) <= EPS * (1 + 1e-6)) == allowed


def test_the_distance_is_the_area_of_the_square_around_all_changes() -> None:
    clean = images(3)
    x = clean.clone()
    x[1, 0, 2, 2] = 0.0
    x[2, 0, 1, 1], x[2, 1, 2, 4] = 0.0, 0.0
    assert torch.allclose(Patch(EPS).around(clean, UNIT).distance(x), torch.tensor([0, 1, 16]) / 30)


def test_what_is_not_finite_or_outside_the_bounds_is_not_contained() -> None:
    clean = images(4)
    x = clean.clone()
    x[1, 0, 2, 2], x[2, 1, 3, 3], x[3, 0, 0, 0] = math.nan, 1.1, -0.1
    assert Patch(EPS).around(clean, UNIT).contains(x).tolist() == [True, False, False, False]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.1, 1.0, 10.0]))
def test_projection_gives_the_nearest_image_of_the_region(seed: int, spread: float) -> None:
    clean = images(3, seed)
    x = clean + spread * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + 1))
    region = Patch(EPS).around(clean, UNIT)
    nearest = region.project(x.clone())
    assert region.contains(nearest).all()
    reached = (x - nearest).square().sum((1, 2, 3))
    for window in windows():
        other = torch.where(window, x.clamp(0, 1), clean)
        assert (reached <= (x - other).square().sum((1, 2, 3)) * (1 + 1e-5)).all()


def test_a_point_of_the_region_is_its_own_projection() -> None:
    region = Patch(EPS).around(images(), UNIT)
    x = region.random_start(numbers(), "start/0")
    assert torch.equal(region.project(x.clone()), x)


def test_random_starts_fill_windows_all_over_the_image() -> None:
    clean = images(200)
    region = Patch(EPS).around(clean, UNIT)
    x = region.random_start(numbers(200), "start/0")
    changed = (x != clean).any(1)
    assert region.contains(x).all()
    assert (changed.sum((1, 2)) == SIDE**2).all()
    assert len({tuple(one.flatten().tolist()) for one in changed}) == len(list(windows()))


def test_a_random_start_is_a_samples_own() -> None:
    region, index = Patch(EPS).around(images(), UNIT), torch.tensor([4, 1])
    part = region.select(index).random_start(numbers().select(index), "start/0")
    assert torch.equal(region.random_start(numbers(), "start/0")[index], part)


def test_the_first_step_is_into_the_window_where_a_linear_loss_rises_most() -> None:
    clean = images()
    gradient = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    region = Patch(EPS).around(clean, UNIT)
    x = region.project(clean + EPS * region.steepest(gradient.clone(), clean))
    gain = ((x - clean) * gradient).sum((1, 2, 3))
    best = torch.where(gradient > 0, torch.ones_like(clean), 0)
    for window in windows():
        assert (gain >= ((torch.where(window, best, clean) - clean) * gradient).sum((1, 2, 3)) - 1e-5).all()


def test_further_steps_stay_in_the_window_that_is_painted() -> None:
    region = Patch(EPS).around(images(), UNIT)
    x = region.random_start(numbers(), "start/0")
    step = region.steepest(torch.randn(x.shape, generator=torch.Generator().manual_seed(5)), x)
    assert torch.equal((step != 0).any(1), (x != images()).any(1))
    assert step.abs().max() * EPS == pytest.approx(1.0)


def test_a_gradient_that_is_zero_or_nan_gives_a_finite_step() -> None:
    clean = images()
    region = Patch(EPS).around(clean, UNIT)
    assert (region.steepest(torch.zeros_like(clean), clean) == 0).all()
    assert region.steepest(torch.full_like(clean, math.nan), clean).isfinite().all()


def test_the_known_distances_of_a_half_space_are_those_of_brute_force() -> None:
    model = HalfSpace()
    clean = half_space_setting(Patch(0.5)).clean.clamp(0.3, 0.7)
    score = model(clean)[:, 0]
    target = torch.where((score[:, None, None, None] * model.weight) > 0, 0.0, 1.0)
    found = torch.full_like(score, torch.inf)
    for side in range(5, 0, -1):
        for top, left in itertools.product(range(6 - side), repeat=2):
            x = clean.clone()
            rows, columns = slice(top, top + side), slice(left, left + side)
            x[:, :, rows, columns] = target[:, :, rows, columns]
            crossed = model(x)[:, 0].sign() != score.sign()
            found = torch.where(crossed, torch.minimum(found, torch.tensor(side**2 / 25)), found)
    assert torch.equal(model.distance(clean, "patch"), found)
