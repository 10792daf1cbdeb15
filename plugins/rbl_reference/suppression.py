"""Non-maximum suppression by torchvision's operator, several times as fast as the core's, or else by the core's."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robustbench_lab.tasks import boxes as core


def keep_best(boxes: Tensor, scores: Tensor, labels: Tensor, most_overlap: float) -> Tensor:
    """As `robustbench_lab.tasks.boxes.keep_best`."""
    operator = _torchvision_nms()
    if operator is None:
        return core.keep_best(boxes, scores, labels, most_overlap)
    kept = torch.zeros_like(labels, dtype=torch.bool)
    # Classes far apart from one another do not suppress each other.
    apart = boxes + (labels * (boxes.max() - boxes.min() + 1))[:, :, None]
    for image, count in enumerate((scores > 0).sum(1).tolist()):
        kept[image, operator(apart[image, :count], scores[image, :count], most_overlap)] = True
    return kept


@functools.cache
def _torchvision_nms() -> Callable[..., Any] | None:
    """None where torchvision is absent, or does not match torch: it raises RuntimeError then."""
    try:
        from torchvision.ops import nms
    except (ImportError, RuntimeError):
        return None
    operator: Callable[..., Any] = nms
    return operator
