"""Digital changes: brightness, contrast, elastic warping, large pixels, compression."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor

from rbl_attacks.natural.corruption_kinds.filters import smoothed
from rbl_defenses.jpeg import recompressed

if TYPE_CHECKING:
    from rbl_attacks.natural.corruption_kinds import Numbers


def brightness(x: Tensor, more: float, numbers: Numbers) -> Tensor:  # noqa: ARG001 (nothing is random)
    """The value of each pixel (its largest channel) raised by `more`, hue and saturation left."""
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp_(0, 1)
    return torch.where(value > 0, x * (raised / value.clamp_min(1e-12)), raised)


def contrast(x: Tensor, share: float, numbers: Numbers) -> Tensor:  # noqa: ARG001 (nothing is random)
    """Only this share of the difference from each channel's mean is left."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * share + mean


def elastic(x: Tensor, level: tuple[float, float, float], numbers: Numbers) -> Tensor:
    """A random affine map, then a smooth random displacement of every pixel.

    level: the largest displacement, its smoothness, and how far the affine map moves three points, as shares of the
    shorter side.
    """
    side = min(x.shape[2:])
    displacement, smoothness, shift = (share * side for share in level)
    warped = _sampled(x, _affine(x, shift, numbers), mirror_at_centres=True)
    if displacement == 0:
        return warped
    random = numbers.uniform("elastic_transform/displacement", (2, *x.shape[2:])) * 2 - 1
    offset = smoothed(random, smoothness, mode="reflect", truncate=3) * displacement
    return _sampled(warped, _pixels(x) + offset.permute(0, 2, 3, 1), mirror_at_centres=False)


def _affine(x: Tensor, shift: float, numbers: Numbers) -> Tensor:
    """Where each pixel comes from, `[N, H, W, 2]`: the map that takes three moved points back to their places."""
    height, width = x.shape[2:]
    reach = max(1, min(height, width) // 3)
    centre = torch.tensor([width // 2, height // 2], dtype=torch.float64, device=x.device)
    corners = torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64, device=x.device)
    points = centre + reach * corners
    moved = points + (numbers.uniform("elastic_transform/affine", (3, 2)).double() * 2 - 1) * shift
    # Rows (x, y, 1): moved @ back = points.
    back: Tensor = torch.linalg.pinv(torch.cat([moved, torch.ones_like(moved[:, :, :1])], dim=2)) @ points
    pixels = _pixels(x).double()
    pixels = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    return (pixels @ back[:, None]).to(x.dtype)


def _pixels(x: Tensor) -> Tensor:
    """Each pixel's own place (column, row), `[H, W, 2]`."""
    row, column = (torch.arange(length, device=x.device, dtype=x.dtype) for length in x.shape[2:])
    return torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)


def _sampled(x: Tensor, place: Tensor, *, mirror_at_centres: bool) -> Tensor:
    """Bilinear interpolation at pixel places `[N, H, W, 2]`; beyond the border the image is mirrored.

    mirror_at_centres: at the centres of the border pixels, instead of their outer edges.
    """
    size = place.new_tensor([x.shape[3], x.shape[2]])
    grid = 2 * place / (size - 1).clamp_min(1) - 1 if mirror_at_centres else (2 * place + 1) / size - 1
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=mirror_at_centres)


def pixelate(x: Tensor, share: float, numbers: Numbers) -> Tensor:  # noqa: ARG001 (nothing is random)
    """Scaled down to this share of the side and up again, both by means over boxes."""
    for axis in (2, 3):
        length = x.shape[axis]
        fewer = max(1, int(length * share))
        through = (_boxes(length, fewer) @ _boxes(fewer, length)).to(x)
        x = torch.movedim(torch.movedim(x, axis, -1) @ through, -1, axis)
    return x


@lru_cache(maxsize=32)
def _boxes(length: int, fewer: int) -> Tensor:
    """A line of `length` pixels to `fewer`, as a matrix `[length, fewer]`: means of pixels whose centre is in a box."""
    scale = length / fewer
    centre = (np.arange(fewer) + 0.5) * scale
    reach = max(scale, 1) / 2
    first = (centre - reach + 0.5).astype(int).clip(0, length)
    after = (centre + reach + 0.5).astype(int).clip(0, length)
    place = np.arange(length)[:, None]
    inside = ((place >= first) & (place < after)).astype(np.float64)
    return torch.from_numpy(inside / inside.sum(0))


def jpeg(x: Tensor, quality: int, numbers: Numbers) -> Tensor:  # noqa: ARG001 (nothing is random)
    """Compressed and decompressed at this quality."""
    return recompressed(x, quality)
