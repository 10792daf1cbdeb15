"""Median filter: spatial smoothing of Xu, Evans & Qi 2018 (https://arxiv.org/abs/1704.01155, section 4.2)."""

from typing import Annotated

import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from pydantic import Field
from torch import Tensor, nn

from rbl_defenses.preprocessed import Preprocessed


def median(model: nn.Module, *, size: Annotated[int, Field(ge=2, le=9)] = 3) -> nn.Module:
    """The median of a size x size window around each pixel of `[N, C, H, W]`, reflected at the border.

    Differentiable: the gradient goes to the pixel that was the median.
    """
    return Preprocessed(model, lambda x: _filtered(x, size))


def _filtered(images: Tensor, size: int) -> Tensor:
    before, after = (size - 1) // 2, size // 2
    padded = F.pad(images, (before, after, before, after), mode="reflect")
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    return windows.flatten(-2).median(-1).values
