"""Classes of pixels: masks of them, and the logits that a segmentation network decides them by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = 255
"""Class of pixels that count nowhere, as in Pascal VOC and Cityscapes."""


def is_logit_maps(prediction: Any) -> bool:
    """Whether a prediction has the form of a segmentation network's: a float tensor `[N, K, H, W]`, K of 2 to 255."""
    from torch import Tensor

    return (
        isinstance(prediction, Tensor)
        and prediction.ndim == 4
        and prediction.is_floating_point()
        and 2 <= prediction.shape[1] <= IGNORED
    )


def predicted_classes(logits: Tensor) -> Tensor:
    """The class of each pixel, int64 `[B, H, W]`; -1 where a logit is NaN, because that is no decision.

    Of equal logits the first, as `max` and `argmax` have it; these take three times as long on a CPU.
    """
    import torch  # here, since lists and plans need none

    classes = logits.shape[1]
    if classes > IGNORED or not logits.is_contiguous():
        highest, first = logits.max(1)
        return first.masked_fill(highest.isnan(), -1)
    ranks = torch.arange(classes, 0, -1, dtype=torch.uint8, device=logits.device).view(-1, 1, 1)
    reached = (logits == logits.amax(1, keepdim=True)).view(torch.uint8)  # nowhere where a logit is NaN
    rank = reached.mul_(ranks).amax(1).long()
    return torch.where(rank > 0, classes - rank, -1)
