"""Corruption and spatial: what is refused as a budget, what their regions contain, and how images are moved."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.natural import Corruption, Spatial
from robustbench_lab.threat_models.natural_regions import rotated_and_shifted

UNIT, OPEN = Bounds(), Bounds(-math.inf, math.inf)


def images(count: int = 4, shape: tuple[int, ...] = (3, 9, 7), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def numbers(count: int) -> SampleRng:
    return SampleRng.for_samples(0, "test", [str(index) for index in range(count)], torch.device("cpu"))


def moved(x: Tensor, degrees: float = 0.0, across: float = 0.0, down: float = 0.0, bounds: Bounds = UNIT) -> Tensor:
    shift = torch.tensor([across, down]).expand(len(x), 2)
    return rotated_and_shifted(x, torch.full((len(x),), degrees), shift, bounds)


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("severity", [1, 2.0, 5])
def test_every_severity_is_a_budget(severity: float) -> None:
    Corruption(severity).check(UNIT)


@pytest.mark.parametrize("severity", [0, 1.5, 6, math.nan, math.inf, -1])
def test_what_is_no_severity_is_refused(severity: float) -> None:
    with pytest.raises(UsageError, match="eps is the severity; give a whole number from 1 to 5"):
        Corruption(severity).check(UNIT)


@pytest.mark.parametrize(
    ("threat_model", "said"),
    [
        (Spatial(0), "give a number above 0"),
        (Spatial(math.nan), "give a number above 0"),
        (Spatial(7), "eps \\* max_rotation is 210 degrees; it must be within 0 to 180"),
        (Spatial(1, max_rotation=-1), "it must be within 0 to 180"),
        (Spatial(5, max_translation=0.3), "eps \\* max_translation is 1.5; it must be within 0 to 1"),
        (Spatial(1, max_rotation=0, max_translation=0), "nothing may change"),
    ],
)
def test_a_spatial_budget_that_makes_no_sense_is_refused(threat_model: Spatial, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        threat_model.check(UNIT)


@pytest.mark.parametrize("threat_model", [Corruption(1), Spatial(1)])
def test_data_without_a_lowest_value_is_refused(threat_model: Corruption | Spatial) -> None:
    threat_model.check(Bounds(-2, 3))
    with pytest.raises(UsageError, match="range is open"):
        threat_model.check(OPEN)


@pytest.mark.parametrize("threat_model", [Corruption(1), Spatial(1)])
def test_inputs_that_are_no_images_are_skipped_with_a_reason(threat_model: Corruption | Spatial) -> None:
    with pytest.raises(SkipCell, match="for images"):
        threat_model.around(torch.rand(3, 20), UNIT)


# ---------------------------------------------------------------- regions


@pytest.mark.parametrize("threat_model", [Corruption(3), Spatial(1)])
def test_what_is_not_finite_or_outside_the_bounds_is_not_contained(threat_model: Corruption | Spatial) -> None:
    clean = images()
    x = clean.clone()
    x[1, 0, 2, 2], x[2, 1, 3, 3], x[3, 0, 0, 0] = math.nan, 1.2, -0.1
    assert threat_model.around(clean, UNIT).contains(x).tolist() == [True, False, False, False]


def test_a_spatial_change_brings_no_brighter_value_than_its_channel_had() -> None:
    clean = images() * 0.5
    x = clean.clone()
    x[1, 2, 4, 4] = 0.7
    x[2, 2, 4, 4] = 0.0
    assert Spatial(1).around(clean, UNIT).contains(x).tolist() == [True, False, True, True]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000), degrees=st.floats(-180, 180), across=st.floats(-1, 1), bounds=st.sampled_from([0, -3])
)
def test_every_moved_image_is_contained(seed: int, degrees: float, across: float, bounds: float) -> None:
    limits = Bounds(bounds, bounds + 5)
    clean = images(seed=seed) * limits.width + limits.low
    region = Spatial(1, 180, 1).around(clean, limits)
    assert region.contains(moved(clean, degrees, across, -across / 2, limits)).all()
    assert region.contains(region.random_start(numbers(len(clean)), f"start/{seed}")).all()


@pytest.mark.parametrize("threat_model", [Corruption(3), Spatial(1)])
def test_the_distance_is_the_euclidean_length_of_the_change(threat_model: Corruption | Spatial) -> None:
    clean, x = images(), images(seed=1)
    distance = threat_model.around(clean, UNIT).distance(x)
    assert torch.allclose(distance, (x - clean).square().sum((1, 2, 3)).sqrt())


@pytest.mark.parametrize("threat_model", [Corruption(3), Spatial(1)])
def test_a_selected_region_is_that_of_the_samples(threat_model: Corruption | Spatial) -> None:
    part = threat_model.around(images(), UNIT).select(torch.tensor([2, 0]))
    assert torch.equal(part.clean, images()[[2, 0]])


def test_there_are_no_directions_to_follow() -> None:
    region = Spatial(1).around(images(), UNIT)
    with pytest.raises(SkipCell, match="no steepest direction"):
        region.steepest(images(), images())
    with pytest.raises(SkipCell, match="no projection"):
        region.project(images())
    with pytest.raises(SkipCell, match="use the attack 'corruptions'"):
        Corruption(1).around(images(), UNIT).random_start(numbers(4), "start/0")


def test_a_random_start_is_a_samples_own() -> None:
    clean = images(6)
    whole = Spatial(1).around(clean, UNIT)
    index = torch.tensor([4, 1])
    part = whole.select(index).random_start(numbers(6).select(index), "start/0")
    assert torch.allclose(whole.random_start(numbers(6), "start/0")[index], part, atol=1e-6)


# ---------------------------------------------------------------- how images are moved


def test_no_rotation_and_no_shift_leave_an_image_as_it_is() -> None:
    assert torch.allclose(moved(images()), images(), atol=1e-5)


def test_a_quarter_turn_is_counter_clockwise_and_exact_on_a_square() -> None:
    square = images(shape=(3, 8, 8))
    assert torch.allclose(moved(square, degrees=90.0), square.rot90(1, (2, 3)), atol=1e-5)


def test_half_a_turn_is_exact_on_any_image() -> None:
    assert torch.allclose(moved(images(), degrees=180.0), images().flip(2, 3), atol=1e-5)


def test_a_shift_by_whole_pixels_moves_right_and_down_and_leaves_black_behind() -> None:
    bounds = Bounds(-1, 1)
    clean = images() * 2 - 1
    x = moved(clean, across=2 / 7, down=3 / 9, bounds=bounds)
    assert torch.allclose(x[:, :, 3:, 2:], clean[:, :, :-3, :-2], atol=1e-5)
    assert (x[:, :, :3] < -0.9999).all()
    assert (x[:, :, :, :2] < -0.9999).all()
