"""Local gradients smoothing against patches (Naseer, Khan & Porikli, WACV 2019, https://arxiv.org/abs/1807.01216)."""

from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from pydantic import Field
from torch import Tensor, nn

from rbl_defenses.preprocessed import Preprocessed
from robustbench_lab.errors import SkipCell

Count = Annotated[int, Field(ge=1)]


def lgs(
    model: nn.Module,
    *,
    window: Count = 15,
    overlap: Annotated[int, Field(ge=0)] = 5,
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    strength: Annotated[float, Field(gt=0)] = 2.3,
) -> nn.Module:
    """Darken pixels of images `[N, C, H, W]` in [0, 1] where grey levels change fast all over a window, as in a patch.

    `x * (1 - clip(strength * g))` (eq. 5), where g is the length of the image's gradient, scaled to [0, 1] in each
    image, in the windows in which its mean is above the threshold, and 0 elsewhere (eq. 3 and 4). The gradient passes
    through g; which windows count is piecewise constant.

    window: their side in pixels; that of the image where it is smaller.
    overlap: of neighbouring windows, in pixels.
    threshold: the mean from which on a window is smoothed.
    strength: factor of the smoothing.
    """
    return Preprocessed(model, lambda x: x * (1 - (strength * _estimated(x, window, overlap, threshold)).clamp(0, 1)))


def _estimated(images: Tensor, window: int, overlap: int, threshold: float) -> Tensor:
    """The scaled gradient in the windows that count, `[N, 1, H, W]`."""
    if images.ndim != 4 or min(images.shape[2:]) < 2:
        raise SkipCell(f"lgs needs images [N, C, H, W] of at least 2x2 pixels; these are {list(images.shape)}")
    length = _gradient_length(images.mean(1, keepdim=True))
    low, high = (length.amin((2, 3), keepdim=True), length.amax((2, 3), keepdim=True))
    scaled = (length - low) / (high - low).clamp_min(1e-6)
    return scaled * _busy(scaled.detach(), window, overlap, threshold)


def _gradient_length(grey: Tensor) -> Tensor:
    """Of first-order differences to the right and down, `[N, 1, H, W]`; 0 beyond the last row and column."""
    across = F.pad(grey.diff(dim=3), (0, 1))
    down = F.pad(grey.diff(dim=2), (0, 0, 0, 1))
    return (across.square() + down.square() + 1e-12).sqrt()


@torch.no_grad()
def _busy(scaled: Tensor, window: int, overlap: int, threshold: float) -> Tensor:
    """Whether each pixel lies in a window whose mean is above the threshold, 0 or 1, `[N, 1, H, W]`.

    The last windows of a row and of a column end at the image's border.
    """
    height, width = scaled.shape[2:]
    side = min(window, height, width)
    step = max(1, side - overlap)
    # All places of a window by its upper left pixel; rows first and then columns, which takes less time.
    mean = F.avg_pool2d(F.avg_pool2d(scaled, (side, 1), stride=1), (1, side), stride=1)
    looked_at = torch.zeros_like(mean)
    looked_at[:, :, _firsts(height, side, step)[:, None], _firsts(width, side, step)] = 1
    above = F.pad((mean > threshold) * looked_at, (side - 1,) * 4)
    return F.max_pool2d(F.max_pool2d(above, (side, 1), stride=1), (1, side), stride=1)


def _firsts(length: int, side: int, step: int) -> Tensor:
    """Where windows begin along an axis; the last one ends with it."""
    return torch.tensor(sorted({*range(0, length - side, step), length - side}))
