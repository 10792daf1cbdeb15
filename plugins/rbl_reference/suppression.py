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
    # Classes far apart from one another do not suppress each other.
    apart = boxes + (labels * (boxes.max() - boxes.min() + 1))[:, :, None]
    counts = (scores > 0).sum(1).tolist()
    most = scores.shape[1]
    places = [
        operator(image[:count], surest[:count], most_overlap) + most * number
        for number, (image, surest, count) in enumerate(zip(apart.unbind(), scores.unbind(), counts, strict=True))
    ]
    kept = torch.zeros_like(labels, dtype=torch.bool)
    if places:
        kept.view(-1)[torch.cat(places)] = True
    return kept


@functools.cache
def _torchvision_nms() -> Callable[..., Any] | None:
    """None where torchvision is absent, or does not match torch: it raises RuntimeError then."""
    try:
        import torchvision.ops  # noqa: F401 (registers the operator)
    except (ImportError, RuntimeError):
        return None
    operator: Callable[..., Any] = torch.ops.torchvision.nms.default
    return operator
