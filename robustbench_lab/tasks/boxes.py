"""Axis-aligned boxes `[..., 4]` in pixels: x of the left edge, y of the top, x of the right, y of the bottom (xyxy)."""

from __future__ import annotations

import torch
from torch import Tensor

LEADERS = 16
"""Rounds of suppression that are done for all classes of all images at once: after so many little is left."""


def area(boxes: Tensor) -> Tensor:
    """Pixels², `[...]`; 0 where an edge lies beyond its opposite."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0)
    return sides[..., 0] * sides[..., 1]


def intersection(first: Tensor, second: Tensor) -> Tensor:
    """Common area of every pair, `[..., P, 4]` and `[..., Q, 4]` to `[..., P, Q]`."""
    left, top, right, bottom = first[..., :, None, :].unbind(-1)
    other_left, other_top, other_right, other_bottom = second[..., None, :, :].unbind(-1)
    width = (torch.minimum(right, other_right) - torch.maximum(left, other_left)).clamp_min(0)
    height = (torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)).clamp_min(0)
    return width * height


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair, `[..., P, 4]` and `[..., Q, 4]` to `[..., P, Q]`; 0 for empty boxes."""
    common = intersection(first, second)
    union = area(first)[..., :, None] + area(second)[..., None, :] - common
    return common / union.clamp_min(1e-9)


def keep_best(boxes: Tensor, scores: Tensor, labels: Tensor, most_overlap: float) -> Tensor:
    """Greedy non-maximum suppression within each class.

    boxes `[B, D, 4]`, scores `[B, D]` in falling order, labels `[B, D]` to bool `[B, D]`: what is kept. A box goes
    where its IoU with a kept one of higher score and the same label is above `most_overlap`; a score of 0 is no box.
    """
    kept, left = _keep_leaders(boxes, scores, labels, most_overlap)
    for image in left.any(1).nonzero().squeeze(1).tolist():  # all their overlaps at once leave the cache
        places = left[image].nonzero().squeeze(1)
        kept[image, places] = _keep_best(boxes[image, places], labels[image, places], most_overlap)
    return kept


def _keep_leaders(boxes: Tensor, scores: Tensor, labels: Tensor, most_overlap: float) -> tuple[Tensor, Tensor]:
    """The first rounds of `keep_best`, of all classes of all images at once: what is kept, and what is left to judge.

    The surest box of a class in an image is kept, and what it beats goes; then the surest that is left; and so on. Both
    bool `[B, D]`.
    """
    kept, left = torch.zeros_like(labels, dtype=torch.bool), torch.zeros_like(labels, dtype=torch.bool)
    there = (scores > 0).flatten().nonzero().squeeze(1)
    if not len(there):
        return kept, left
    group = there // labels.shape[1] * (labels.max() + 1) + labels.flatten().index_select(0, there)
    columns = _with_area(boxes.flatten(0, 1).index_select(0, there))
    groups = int(group.max()) + 1
    for _ in range(LEADERS):
        places = torch.arange(len(there), device=there.device)
        first = torch.full((groups,), len(there), device=there.device).scatter_reduce_(0, group, places, "amin")
        leader = first.index_select(0, group)
        leads = leader == places
        kept.view(-1)[there[leads]] = True
        beaten = (_overlaps(columns, columns.index_select(1, leader)) > most_overlap).logical_or_(leads)
        rest = beaten.logical_not_().nonzero().squeeze(1)
        there, group, columns = there[rest], group[rest], columns.index_select(1, rest)
        if not len(rest):
            break
    left.view(-1)[there] = True
    return kept, left


def _with_area(boxes: Tensor) -> Tensor:
    """Boxes `[P, 4]` as columns, with their area below, `[5, P]`."""
    return torch.cat([boxes, area(boxes)[:, None]], dim=1).T.contiguous()


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """`iou` pair by pair of boxes with their area, `[5, P]` and `[5, P]` to `[P]`."""
    sides = torch.minimum(first[2:4], second[2:4]).sub_(torch.maximum(first[:2], second[:2])).clamp_min_(0)
    common = sides[0] * sides[1]
    return common / (first[4] + second[4]).sub_(common).clamp_min_(1e-9)


def _keep_best(boxes: Tensor, labels: Tensor, most_overlap: float) -> Tensor:
    """The same for the boxes `[D, 4]` of one image, in falling order of score.

    A box is kept exactly when no kept box before it beats it. Applying this to all boxes at once settles at least one
    more box each time, and is done after as many rounds as boxes beat each other in a row: few.
    """
    beats = (iou(boxes, boxes) > most_overlap) & (labels[:, None] == labels)
    beats = beats.triu(diagonal=1).float()
    kept = torch.ones_like(labels, dtype=torch.bool)
    while True:
        now = kept.float() @ beats == 0
        if torch.equal(now, kept):
            return kept
        kept = now
