"""Non-maximum suppression by torchvision's operator, several times as fast as the core's, or else by the core's."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robustbench_lab.tasks import boxes as core

BOXES_AT_ONCE = 400
"""In one call of the operator, about: fewer pay its fixed cost more often, of more it compares too many pairs."""


def keep_best(boxes: Tensor, scores: Tensor, labels: Tensor, most_overlap: float) -> Tensor:
    """As `robustbench_lab.tasks.boxes.keep_best`."""
    operator = _torchvision_nms()
    if operator is None or not labels.numel():
        return core.keep_best(boxes, scores, labels, most_overlap)
    there = (scores > 0).flatten().nonzero().squeeze(1)
    images = max(1, min(len(labels), BOXES_AT_ONCE * len(labels) // max(1, len(there))))
    apart = _far_apart(boxes, labels, images).flatten(0, 1)
    at_once = images * scores.shape[1]
    borders = torch.arange(at_once, labels.numel() + at_once, at_once, device=there.device)
    ends = torch.searchsorted(there, borders).tolist()
    surest = scores.flatten().double()
    kept = torch.zeros_like(labels, dtype=torch.bool)
    for start, end in itertools.pairwise([0, *ends]):
        places = there[start:end]
        found = operator(apart.index_select(0, places), surest.index_select(0, places), most_overlap)
        kept.view(-1)[places.index_select(0, found)] = True
    return kept


def _far_apart(boxes: Tensor, labels: Tensor, images: int) -> Tensor:
    """The boxes in float64, those of other classes and of so many neighbouring images out of one another's reach."""
    place = torch.arange(len(labels), device=labels.device)[:, None] % images
    groups = labels + (labels.max() + 1) * place
    boxes = boxes.double().nan_to_num(0.0, 0.0, 0.0)  # one that is no number must not reach the others
    return boxes + (groups * (boxes.max() - boxes.min() + 1))[:, :, None]


@functools.cache
def _torchvision_nms() -> Callable[..., Any] | None:
    """None where torchvision is absent, or does not match torch: it raises RuntimeError then."""
    try:
        import torchvision.ops  # noqa: F401 (registers the operator)
    except (ImportError, RuntimeError):
        return None
    operator: Callable[..., Any] = torch.ops.torchvision.nms.default
    return operator
