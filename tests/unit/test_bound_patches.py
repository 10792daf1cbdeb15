"""Patches in fixed places and on objects, and masks: which pixels may change, and the geometry of their regions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from robustbench_lab.contracts import Bounds, Region, ThreatModel
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.bound_patches import ObjectPatch, PlacedPatch
from robustbench_lab.threat_models.mask import Mask
from robustbench_lab.threat_models.painted_region import PaintedRegion

UNIT = Bounds()
SHAPE = (2, 12, 10)
BOXES = torch.tensor(
    [
        [[1.0, 2.0, 7.0, 8.0], [6.0, 6.0, 10.0, 12.0], [0.0, 0.0, 0.0, 0.0]],
        [[0.0, 0.0, 10.0, 12.0], [2.2, 3.7, 2.9, 4.1], [4.0, 4.0, 9.0, 9.0]],
    ]
)
TARGETS = {
    "boxes": BOXES,
    "labels": torch.tensor([[0, 1, -1], [2, 0, 1]]),
    "crowd": torch.tensor([[False, False, False], [False, False, True]]),
}


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def numbers(count: int = 2) -> SampleRng:
    return SampleRng.for_samples(0, "test", [str(index) for index in range(count)], torch.device("cpu"))


def may_change(region: Region, sample: int = 0) -> Tensor:
    """Bool `[H, W]`, asked pixel by pixel of `contains`."""
    clean = region.clean
    found = torch.zeros(SHAPE[1:], dtype=torch.bool)
    for row in range(SHAPE[1]):
        for column in range(SHAPE[2]):
            x = clean.clone()
            x[:, 0, row, column] = (x[:, 0, row, column] + 1e-3).clamp(max=1)
            found[row, column] = region.contains(x)[sample]
    return found


def rectangle(top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(SHAPE[1:], dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


# ---------------------------------------------------------------- which pixels


@pytest.mark.parametrize(
    ("threat_model", "expected"),
    [
        (PlacedPatch(9 / 120), rectangle(0, 0, 3, 3)),
        (PlacedPatch(9 / 120, x=1.0), rectangle(0, 7, 3, 10)),
        (PlacedPatch(9 / 120, x=1.0, y=1.0), rectangle(9, 7, 12, 10)),
        (PlacedPatch(16 / 120, x=0.5, y=0.5), rectangle(4, 3, 8, 7)),
        (Mask(0.1, box=(0.0, 0.5, 1.0, 1.0)), rectangle(6, 0, 12, 10)),
        (Mask(0.1, box=(0.2, 0.0, 0.5, 0.25)), rectangle(0, 2, 3, 5)),
        # A quarter of 6x6 pixels: 3x3 about the centre. A quarter of 4x6: 2x2.
        (ObjectPatch(9 / 36), rectangle(3, 2, 6, 5) | rectangle(8, 7, 10, 9)),
        (ObjectPatch(9 / 36, labels=[0]), rectangle(3, 2, 6, 5)),
        (ObjectPatch(9 / 36, labels=[0], x=1.0, y=0.0), rectangle(0, 5, 3, 8)),
        (ObjectPatch(9 / 36, labels=[5]), rectangle(0, 0, 0, 0)),
        (Mask(0.1, where="objects"), rectangle(2, 1, 8, 7) | rectangle(6, 6, 12, 10)),
        (Mask(0.1, where="background"), ~(rectangle(2, 1, 8, 7) | rectangle(6, 6, 12, 10))),
        (Mask(0.1, where="background", labels=[1]), ~rectangle(6, 6, 12, 10)),
    ],
)
def test_the_pixels_that_may_change_are_those_described(threat_model: ThreatModel, expected: Tensor) -> None:
    assert torch.equal(may_change(threat_model.around(images(), UNIT, TARGETS)), expected)


def test_a_crowd_has_no_patch_but_counts_as_a_place_with_objects() -> None:
    crowd_only = {**TARGETS, "crowd": torch.ones(2, 3, dtype=torch.bool)}
    assert not may_change(ObjectPatch(0.25).around(images(), UNIT, crowd_only)).any()
    assert torch.equal(
        may_change(Mask(0.1, where="objects").around(images(), UNIT, crowd_only)),
        may_change(Mask(0.1, where="objects").around(images(), UNIT, TARGETS)),
    )


@settings(deadline=None, max_examples=60)
@given(
    box=st.tuples(*[st.floats(-3, 14)] * 4),
    share=st.floats(0.01, 1),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
)
def test_a_patch_on_an_object_is_a_square_of_at_most_its_share_about_the_point_named(
    box: tuple[float, ...], share: float, x: float, y: float
) -> None:
    left, top, right, bottom = box
    targets = {"boxes": torch.tensor([[box]]), "labels": torch.zeros(1, 1, dtype=torch.int64)}
    region = ObjectPatch(share, x=x, y=y).around(images(1), UNIT, targets)
    assert isinstance(region, PaintedRegion)
    first_row, first_column, side = region.windows[0, 0].tolist()
    area = share * max(right - left, 0) * max(bottom - top, 0)
    assert side**2 <= area * (1 + 1e-4) + 1e-6
    assert area < (side + 1) ** 2 + 1e-4
    if side:
        assert abs(first_row + side / 2 - (top + y * (bottom - top))) <= 0.5 + 1e-3
        assert abs(first_column + side / 2 - (left + x * (right - left))) <= 0.5 + 1e-3
    inside = rectangle(*(max(one, 0) for one in (first_row, first_column, first_row + side, first_column + side)))
    assert torch.equal(region.paintable[0, 0], inside)


def test_a_drawn_mask_says_where_pixels_may_change(tmp_path: Path) -> None:
    drawn = rectangle(1, 2, 4, 9)
    Image.fromarray(drawn.numpy().astype(np.uint8) * 255).save(tmp_path / "mask.png")
    threat_model = Mask(0.1, file=str(tmp_path / "mask.png"))
    threat_model.check(UNIT)
    assert torch.equal(may_change(threat_model.around(images(), UNIT)), drawn)
    with pytest.raises(SkipCell, match=r"is 12x10, the images are 8x8: draw it at their size"):
        threat_model.around(torch.rand(1, 3, 8, 8), UNIT)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("threat_model", "said"),
    [
        (PlacedPatch(0), "give a number above 0 and below 1"),
        (PlacedPatch(math.nan), "give a number above 0 and below 1"),
        (PlacedPatch(0.1, x=1.5), "shares of the way"),
        (ObjectPatch(1.2), "give a number above 0, up to 1"),
        (ObjectPatch(0.2, y=-0.1), "shares of the way"),
        (Mask(8, box=(0, 0, 1, 1)), "Did you mean 8/255"),
        (Mask(0.1), "give one of box"),
        (Mask(0.1, box=(0, 0, 1, 1), where="objects"), "give one of box"),
        (Mask(0.1, box=(0.5, 0, 0.5, 1)), "left < right"),
        (Mask(0.1, box=(0, 0, 1, 1), labels=[1]), "labels goes with where"),
        (Mask(0.1, file="no/such.png"), "cannot read no/such.png"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(threat_model: ThreatModel, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        threat_model.check(UNIT)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_masks_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    Image.new("L", (10, 12)).save(tmp_path / "black.png")
    for name, said in [("text.png", "cannot read"), ("black.png", "black all over")]:
        with pytest.raises(UsageError, match=said):
            Mask(0.1, file=str(tmp_path / name)).check(UNIT)


@pytest.mark.parametrize("threat_model", [ObjectPatch(0.2), Mask(0.1, where="objects")])
@pytest.mark.parametrize("targets", [None, torch.zeros(2, dtype=torch.int64)])
def test_data_without_objects_is_skipped_with_a_reason(threat_model: ThreatModel, targets: Any) -> None:
    with pytest.raises(SkipCell, match="annotated objects"):
        threat_model.around(images(), UNIT, targets)


@pytest.mark.parametrize("threat_model", [PlacedPatch(0.1), ObjectPatch(0.2), Mask(0.1, box=(0, 0, 1, 1))])
def test_inputs_that_are_no_images_are_skipped_with_a_reason(threat_model: ThreatModel) -> None:
    with pytest.raises(SkipCell, match="for images"):
        threat_model.around(torch.rand(2, 20), UNIT, TARGETS)


# ---------------------------------------------------------------- the regions

EVERY = [
    PlacedPatch(9 / 120, x=0.3),
    ObjectPatch(0.25),
    Mask(0.1, where="objects"),
    Mask(0.5, norm="l2", box=(0.0, 0.5, 1.0, 1.0)),
    Mask(2.0, norm="l1", where="background"),
]


@pytest.mark.parametrize("threat_model", EVERY, ids=str)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_projection_gives_the_nearest_of_many_points_of_the_region(threat_model: ThreatModel, seed: int) -> None:
    clean = images(2, seed)
    region = threat_model.around(clean, UNIT, TARGETS)
    x = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + 1))
    nearest = region.project(x.clone())
    assert region.contains(nearest).all()
    assert torch.allclose(region.project(nearest.clone()), nearest, atol=1e-6)
    if isinstance(threat_model, Mask) and threat_model.norm == "l2":
        return  # clipped, not always nearest: see L2Region.project
    reached = (x - nearest).square().sum((1, 2, 3))
    for draw in range(5):
        other = region.random_start(numbers(), f"{seed}/{draw}")
        mixed = nearest + 0.1 * (other - nearest)
        for one in (other, mixed):
            assert (reached <= (x - one).square().sum((1, 2, 3)) * (1 + 1e-5)).all()


@pytest.mark.parametrize("threat_model", EVERY, ids=str)
def test_random_starts_lie_within_and_change_what_may_change(threat_model: ThreatModel) -> None:
    clean = images()
    region = threat_model.around(clean, UNIT, TARGETS)
    x = region.random_start(numbers(), "start/0")
    assert region.contains(x).all()
    assert torch.equal((x != clean).any(1)[0], may_change(region))


@pytest.mark.parametrize("threat_model", EVERY, ids=str)
def test_some_of_the_samples_have_the_same_region_as_among_all(threat_model: ThreatModel) -> None:
    index = torch.tensor([1])
    region = threat_model.around(images(), UNIT, TARGETS)
    part, starts = region.select(index), region.random_start(numbers(), "start/0")
    assert torch.equal(part.random_start(numbers().select(index), "start/0"), starts[index])
    assert torch.equal(part.distance(starts[index]), region.distance(starts)[index])


@pytest.mark.parametrize("threat_model", EVERY[:2], ids=str)
def test_one_whole_step_reaches_the_best_point_of_a_linear_loss(threat_model: ThreatModel) -> None:
    clean = images()
    region = threat_model.around(clean, UNIT, TARGETS)
    gradient = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    x = region.project(clean + threat_model.eps * region.steepest(gradient.clone(), clean))
    best = torch.where(may_change(region), (gradient > 0).float(), clean[:1])
    assert torch.equal(x[0], best[0])


def test_the_distance_of_a_patch_is_the_share_that_has_changed() -> None:
    clean = images()
    region = PlacedPatch(9 / 120).around(clean, UNIT)
    x = clean.clone()
    x[1, 0, 0, :2], x[1, 1, 0, 1:3] = 0.0, 1.0
    assert torch.allclose(region.distance(x), torch.tensor([0.0, 3 / 120]))
    assert torch.allclose(region.distance(region.random_start(numbers(), "0")), torch.tensor(9 / 120))


def test_what_is_not_finite_or_outside_the_bounds_is_not_contained() -> None:
    clean = images(4)
    x = clean.clone()
    x[1, 0, 0, 0], x[2, 0, 1, 1], x[3, 0, 2, 2] = math.nan, 1.1, -0.1
    assert PlacedPatch(9 / 120).around(clean, UNIT).contains(x).tolist() == [True, False, False, False]


def test_a_gradient_that_is_nan_gives_a_finite_step() -> None:
    region = PlacedPatch(0.1).around(images(), UNIT)
    assert (region.steepest(torch.full_like(images(), math.nan), images()) == 0).all()
