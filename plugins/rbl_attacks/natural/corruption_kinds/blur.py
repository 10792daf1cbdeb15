"""Blur: out of focus, behind frosted glass, by motion, by zooming."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from rbl_attacks.natural.corruption_kinds.filters import convolved, moved, smoothed, zoomed

if TYPE_CHECKING:
    from rbl_attacks.natural.corruption_kinds import Numbers


def defocus(x: Tensor, level: tuple[float, float], numbers: Numbers) -> Tensor:  # noqa: ARG001 (nothing is random)
    """The mean over a disk of radius `level[0]` whose edge is smoothed by a Gaussian of `level[1]` pixels."""
    return convolved(x, torch.from_numpy(_disk(*level)))


def _disk(radius: float, smoothing: float) -> np.ndarray:
    taps = 1 if radius <= 8 else 2
    reach = math.floor(radius) + taps
    place = np.arange(-reach, reach + 1)
    disk = (place[:, None] ** 2 + place**2 <= radius**2).astype(np.float64)
    weights = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * smoothing**2))
    weights /= weights.sum()
    smooth = ndimage.convolve(disk, np.outer(weights, weights), mode="constant")
    return np.asarray(smooth / smooth.sum())


def glass(x: Tensor, level: tuple[float, int, int], numbers: Numbers) -> Tensor:
    """Blurred by `level[0]` pixels, each pixel replaced by one up to `level[1]` away, `level[2]` times, and blurred."""
    sigma, reach, turns = level
    source = torch.from_numpy(_scattered(x.shape[2], x.shape[3], reach, turns, numbers)).to(x.device)
    flat = smoothed(x, sigma).flatten(2)
    scattered = flat.gather(2, source[:, None].expand_as(flat)).reshape(x.shape)
    return smoothed(scattered, sigma)


def _scattered(height: int, width: int, reach: int, turns: int, numbers: Numbers) -> np.ndarray:
    """From where each pixel comes, int64 `[N, H * W]`.

    The pixels are visited one after another from the lower right, and may take what an earlier one has taken. (The
    script behind the published data means to swap two pixels, but its swap of two views copies one to the other.)
    """
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    # Draws are per pixel and turn; pixels in front, so that one visit reads neighbouring numbers of all samples.
    offset = numbers.uniform("glass_blur", (turns, height, width, 2)).mul_(2 * reach).floor_().long() - reach
    steps = (offset[..., 0] * width + offset[..., 1]).cpu().numpy()
    here = np.arange(height * width).reshape(height, width)
    target = np.ascontiguousarray(np.moveaxis((steps + here).reshape(len(steps), turns, -1), 0, -1))
    source = np.repeat(here.reshape(-1, 1), len(steps), axis=1)
    sample = np.arange(len(steps))
    for turn in range(turns):
        for row in rows:
            for pixel in (row * width + column for column in columns):
                source[pixel] = source[target[turn, pixel], sample]
    return np.ascontiguousarray(source.T)


def motion(x: Tensor, level: tuple[int, float], numbers: Numbers) -> Tensor:
    """Along a line, within 45 degrees of the horizontal: radius `level[0]` and sigma `level[1]` pixels."""
    degrees = numbers.uniform("motion_blur", ()) * 90 - 45
    return moved(x, *level, degrees)


def zoom(x: Tensor, level: tuple[float, float], numbers: Numbers) -> Tensor:  # noqa: ARG001 (nothing is random)
    """The mean of the image enlarged by 1 up to `level[0]` (left out) in steps of `level[1]`."""
    factors = np.arange(1, *level).tolist()
    return (x + sum(zoomed(x, factor) for factor in factors)) / (len(factors) + 1)
