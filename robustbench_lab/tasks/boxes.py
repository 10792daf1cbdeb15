"""Axis-aligned boxes `[..., 4]` in pixels: x of the left edge, y of the top, x of the right, y of the bottom (xyxy)."""

from __future__ import annotations

import torch
from torch import Tensor


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
    kept = scores > 0
    for image, count in enumerate(kept.sum(1).tolist()):  # one at a time: all their overlaps at once leave the cache
        kept[image, :count] = _keep_best(boxes[image, :count], labels[image, :count], most_overlap)
    return kept


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
