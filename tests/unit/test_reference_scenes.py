from itertools import combinations, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rbl_reference import scikit_learn_data
from rbl_reference.digits import CLASSES, Split, split_indices
from rbl_reference.scenes import (
    HEIGHTS,
    MOST_OBJECTS,
    ONE,
    SIZE,
    DigitScenes,
    Integers,
    cropped,
    hashed_numbers,
    paint,
    read_material,
    revision_of,
    shrunk,
    stretched,
)
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.boxes import intersection

digits_of_any_ink = st.lists(st.integers(0, 16), min_size=64, max_size=64).map(
    lambda values: np.array(values, np.int64).reshape(8, 8)
)
heights = st.integers(*HEIGHTS)


@pytest.fixture(scope="module")
def scenes() -> DigitScenes:
    return DigitScenes(scenes=200)


# A change of either value changes every stored result on digit-scenes: raise the spec's version with it.
@pytest.mark.parametrize(
    ("split", "revision"),
    [
        ("test", "c6fd96f3a9ab7ec62789bbf8747f92151d65df4feca94bf1246006753dfdafe3"),
        ("train", "b2b1ca48a527db821d3f1619f74cc21eb7ba8ea7884d7c500407c107382e6f2e"),
    ],
)
def test_the_first_100_scenes_of_each_split_are_these_and_no_others(split: Split, revision: str) -> None:
    assert DigitScenes(split=split, scenes=100).revision == revision


def test_a_scene_is_the_same_however_many_there_are(scenes: DigitScenes) -> None:
    few = DigitScenes(scenes=3)
    assert few.sample_ids == scenes.sample_ids[:3]
    one, other = few.load([2, 0]), scenes.load([2, 0])
    assert torch.equal(one.inputs, other.inputs)
    assert all(torch.equal(one.targets[name], other.targets[name]) for name in one.targets)
    assert few.revision != DigitScenes(scenes=4).revision


def test_images_are_within_the_bounds_and_use_them(scenes: DigitScenes) -> None:
    images = scenes.load(range(200)).inputs
    assert (images.shape, images.dtype) == ((200, 3, SIZE, SIZE), torch.float32)
    assert (images.min().item(), images.max().item()) == (scenes.bounds.low, scenes.bounds.high)


def test_each_scene_has_one_to_five_objects_within_it_that_do_not_overlap(scenes: DigitScenes) -> None:
    targets = scenes.load(range(200)).targets
    assert {name: tuple(values.shape) for name, values in targets.items()} == {
        "boxes": (200, MOST_OBJECTS, 4),
        "labels": (200, MOST_OBJECTS),
        "crowd": (200, MOST_OBJECTS),
    }
    assert not bool(targets["crowd"].any())
    real = targets["labels"] >= 0
    assert set(real.sum(1).tolist()) == {1, 2, 3, 4, 5}
    assert set(targets["labels"][real].tolist()) == set(range(CLASSES))
    assert not bool(targets["boxes"][~real].any())
    for boxes in (boxes[there] for boxes, there in zip(targets["boxes"], real, strict=True)):
        assert bool((boxes >= 0).all())
        assert bool((boxes <= SIZE).all())
        assert bool((boxes[:, 2:] > boxes[:, :2]).all())
        common = intersection(boxes, boxes)
        assert all(common[one, other] == 0 for one, other in combinations(range(len(boxes)), 2))


def test_nothing_but_what_lies_in_the_boxes_differs_from_the_photograph() -> None:
    digits, labels, backgrounds = read_material("test")
    image, boxes, classes, _ = paint("any scene", digits, labels, [np.full_like(part, 100) for part in backgrounds])
    outside = np.ones((SIZE, SIZE), bool)
    for left, top, right, bottom in boxes[classes >= 0]:
        outside[top:bottom, left:right] = False
        inside = image[:, top:bottom, left:right] != 100
        assert inside.any(axis=0).any(axis=1).all()
        assert inside.any(axis=0).any(axis=0).all()
    assert (image[:, outside] == 100).all()


def test_test_and_training_scenes_are_made_of_different_digits_and_parts_of_the_photographs() -> None:
    images, _ = scikit_learn_data.digits()
    splits = split_indices(scikit_learn_data.digits()[1])
    test, train = read_material("test"), read_material("train")
    assert np.array_equal(np.stack(test[0]), images[splits["test"]])
    assert np.array_equal(np.stack(train[0]), images[splits["train"]])
    for left, right in zip(train[2], test[2], strict=True):
        assert left.shape[2] + right.shape[2] == 320
        assert min(left.shape[2], right.shape[2]) > SIZE


@given(digits_of_any_ink, heights, heights)
def test_ink_covers_between_nothing_and_all_of_a_pixel_and_mirrors_with_the_digit(
    digit: Integers, height: int, width: int
) -> None:
    ink = stretched(digit, height, width)
    assert ink.shape == (height, width)
    assert ink.min() >= 0
    assert ink.max() <= ONE
    mirrored = stretched(digit[:, ::-1], height, width)[:, ::-1]
    assert np.abs(ink - mirrored).max() <= ONE // 8  # the fixed-point places are rounded down on either side


@given(heights, heights)
def test_a_digit_of_ink_alone_covers_all_but_the_edges(height: int, width: int) -> None:
    ink = stretched(np.full((8, 8), 16, np.int64), height, width)
    assert (ink[2:-2, 2:-2] == ONE).all()
    assert cropped(ink).shape == ink.shape


@given(digits_of_any_ink, heights)
@settings(max_examples=50)
def test_cropping_leaves_no_row_or_column_at_the_edges_without_ink(digit: Integers, height: int) -> None:
    ink = stretched(digit, height, height)
    if (ink * 2 >= ONE).any():
        kept = cropped(ink) * 2 >= ONE
        assert all(edge.any() for edge in (kept[0], kept[-1], kept[:, 0], kept[:, -1]))
        assert kept.sum() == (ink * 2 >= ONE).sum()


@pytest.mark.parametrize("split", ["test", "train"])
def test_every_digit_leaves_ink_at_every_size(split: Split) -> None:
    for digit in read_material(split)[0]:
        for height in HEIGHTS:
            assert cropped(stretched(digit, height, height * 3 // 4)).size > 0


def test_a_photograph_is_shrunk_to_the_means_of_its_pixels() -> None:
    photograph = np.zeros((5, 4, 3), np.uint8)
    photograph[:2, :2, 0] = [[10, 20], [30, 41]]
    photograph[2:4, 2:4, 2] = 255
    small = shrunk(photograph)
    assert small.shape == (3, 2, 2)
    assert small[0].tolist() == [[25, 0], [0, 0]]
    assert small[2].tolist() == [[0, 0], [0, 255]]


def test_hashed_numbers_are_the_same_for_ever_and_differ_by_name() -> None:
    assert list(islice(hashed_numbers("a"), 2)) == [5665373574351757178, 6548252824302934784]
    assert list(islice(hashed_numbers("a"), 20)) != list(islice(hashed_numbers("b"), 20))
    assert len(set(islice(hashed_numbers("a"), 1000))) == 1000


def test_the_revision_changes_with_any_byte() -> None:
    images, boxes, classes = np.zeros((2, 3, 4, 4), np.uint8), np.zeros((2, 5, 4), np.int64), np.zeros((2, 5), np.int64)
    changed = [part.copy() for part in (images, boxes, classes)]
    for part in changed:
        part.flat[3] += 1
    revisions = {
        revision_of(images, boxes, classes),
        revision_of(changed[0], boxes, classes),
        revision_of(images, changed[1], classes),
        revision_of(images, boxes, changed[2]),
    }
    assert len(revisions) == 4


def test_samples_are_copies_so_that_changing_them_leaves_the_data_alone(scenes: DigitScenes) -> None:
    samples = scenes.load([0])
    samples.inputs.fill_(0.5)
    samples.targets["boxes"].fill_(1.0)
    again = scenes.load([0])
    assert not bool((again.inputs == 0.5).all())
    assert not bool((again.targets["boxes"] == 1.0).all())


def test_an_unknown_split_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"no split 'trian'\. Did you mean 'train'\?"):
        DigitScenes(split="trian")  # type: ignore[arg-type]
