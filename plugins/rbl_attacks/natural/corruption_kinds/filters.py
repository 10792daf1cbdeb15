"""What several corruptions share: filters and resampling of images `[N, C, H, W]`."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

Border = Literal["nearest", "reflect"]


def smoothed(x: Tensor, sigma: float, *, mode: Border = "nearest", truncate: float = 4.0) -> Tensor:
    """A Gaussian blur of `sigma` pixels; `mode` and `truncate` as in scipy.ndimage.gaussian_filter."""
    rows, columns = (_smoothing(length, sigma, mode, truncate).to(x) for length in x.shape[2:])
    return rows @ x @ columns.T


@lru_cache(maxsize=32)
def _smoothing(length: int, sigma: float, mode: Border, truncate: float) -> Tensor:
    """The blur of a line of pixels as a matrix: its cost does not depend on sigma."""
    return torch.from_numpy(gaussian_filter1d(np.eye(length), sigma, axis=0, mode=mode, truncate=truncate))


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """Each channel filtered by one kernel `[K, K]`, K odd; the image is mirrored at its border pixels."""
    channels, height, width = x.shape[1:]
    radius = len(kernel) // 2
    mirrored = x[:, :, _mirrored(height, radius)][:, :, :, _mirrored(width, radius)]
    weight = kernel.to(x).expand(channels, 1, *kernel.shape)
    return F.conv2d(mirrored, weight, groups=channels)


def _mirrored(length: int, radius: int) -> Tensor:
    """Positions of a line of pixels with `radius` more at each end, also where that is longer than the line."""
    return torch.from_numpy(np.pad(np.arange(length), radius, mode="reflect"))


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The centre, enlarged by linear interpolation to the size of the whole; `factor` is at least 1."""
    height, width = x.shape[2:]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    centre = x[:, :, top : top + rows, left : left + columns]
    size = (max(height, round(rows * factor)), max(width, round(columns * factor)))
    large = F.interpolate(centre, size=size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return large[:, :, top : top + height, left : left + width]


def moved(x: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Motion blur as ImageMagick has it: the mean of pixels along a line to one side, with Gaussian weights.

    radius: in pixels; the line is twice as long. degrees: `[N]`, the direction, clockwise from the right.
    """
    height, width = x.shape[2:]
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    cos, sin = torch.cos(degrees * (math.pi / 180)), torch.sin(degrees * (math.pi / 180))
    sample = torch.arange(len(x), device=x.device)[:, None, None]
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    by_pixel = x.permute(0, 2, 3, 1)
    out = torch.zeros_like(by_pixel)
    for step, weight in enumerate((weights / weights.sum()).tolist()):
        down = (row + (step * sin - 0.5).ceil().long()[:, None]).clamp(0, height - 1)
        across = (column + (step * cos - 0.5).ceil().long()[:, None]).clamp(0, width - 1)
        out += weight * by_pixel[sample, down[:, :, None], across[:, None, :]]
    return out.permute(0, 3, 1, 2)
