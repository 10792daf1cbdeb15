"""Boxes: overlap against brute force, suppression against torchvision's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_lab.tasks.boxes import LEADERS, area, intersection, iou, keep_best

EDGES = st.integers(0, 12)


@st.composite
def pixel_boxes(draw: st.DrawFn, most: int = 6) -> Tensor:
    corners = draw(st.lists(st.tuples(EDGES, EDGES, EDGES, EDGES), min_size=1, max_size=most))
    return torch.tensor([[x, y, x + w, y + h] for x, y, w, h in corners], dtype=torch.float32)


def pixels(box: Tensor) -> set[tuple[int, int]]:
    left, top, right, bottom = (int(edge) for edge in box)
    return {(x, y) for x in range(left, right) for y in range(top, bottom)}


@settings(max_examples=60, deadline=None)
@given(pixel_boxes(), pixel_boxes())
def test_overlap_of_whole_pixels_is_that_of_sets_of_pixels(first: Tensor, second: Tensor) -> None:
    common, shares = intersection(first, second), iou(first, second)
    for row, one in enumerate(first):
        assert area(one) == len(pixels(one))
        for column, other in enumerate(second):
            both, either = pixels(one) & pixels(other), pixels(one) | pixels(other)
            assert common[row, column] == len(both)
            assert shares[row, column] == pytest.approx(len(both) / len(either) if either else 0.0)


def test_a_box_turned_inside_out_has_no_area() -> None:
    assert area(torch.tensor([5.0, 5.0, 2.0, 9.0])) == 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    most_overlap=st.floats(0.1, 0.9),
    images=st.integers(0, 9),
    many=st.sampled_from([15, 4 * LEADERS]),
)
def test_suppression_keeps_what_torchvision_keeps(seed: int, most_overlap: float, images: int, many: int) -> None:
    torchvision = pytest.importorskip("torchvision")
    generator = torch.Generator().manual_seed(seed)
    corner = 2 * many * torch.rand(images, many, 2, generator=generator) - 5  # of many a class keeps more than LEADERS
    boxes = torch.cat([corner, corner + 1 + 15 * torch.rand(images, many, 2, generator=generator)], dim=2)
    scores, _ = torch.rand(images, many, generator=generator).sort(dim=1, descending=True)
    counts = torch.randint(0, many + 1, (images,), generator=generator)
    scores = torch.where(torch.arange(many) < counts[:, None], scores, 0)
    labels = torch.randint(0, 2, (images, many), generator=generator)
    kept = keep_best(boxes, scores, labels, most_overlap)
    for image, count in enumerate(counts):
        parts = boxes[image, :count], scores[image, :count], labels[image, :count]
        expected = torchvision.ops.batched_nms(*parts, most_overlap)
        assert kept[image].nonzero().squeeze(1).tolist() == sorted(expected.tolist())


def test_a_score_of_zero_is_no_box_and_suppresses_none() -> None:
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 4]]])
    labels = torch.zeros(1, 2, dtype=torch.int64)
    assert keep_best(boxes, torch.tensor([[0.0, 0.0]]), labels, 0.5).tolist() == [[False, False]]
    assert keep_best(boxes, torch.tensor([[0.3, 0.0]]), labels, 0.5).tolist() == [[True, False]]


def test_a_box_that_is_no_number_does_not_reach_the_next_image() -> None:
    same = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4]])
    boxes = torch.stack([torch.full_like(same, torch.nan), same])
    kept = keep_best(boxes, torch.tensor([[0.9, 0.8], [0.9, 0.8]]), torch.zeros(2, 2, dtype=torch.int64), 0.5)
    assert kept[1].tolist() == [True, False]
