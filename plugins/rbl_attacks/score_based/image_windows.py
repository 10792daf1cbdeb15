"""Inputs of any shape as images, and rectangles of pixels in them: where random-search attacks make their changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageShape:
    """Channels, height and width of one input."""

    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> ImageShape:
        """The image that one input `[C, H, W]`, `[C, L]` (a series: height 1) or `[D]` (one channel, height 1) is.

        Further axes in front count as channels.
        """
        if len(shape) < 3:
            shape = (*shape[:-1], 1, *shape[-1:]) if shape else (1, 1)
        *channels, height, width = shape
        return cls(math.prod(channels), height, width)

    def window(self, share: float, *, least: int = 1, odd: bool = False) -> tuple[int, int]:
        """Height and width of a window that covers about this share of the pixels.

        A square of side `sqrt(share * height * width)`, rounded, and to an odd number where `odd`; at least `least`.
        Where the image is too low or too narrow for it, a rectangle of the same area.
        """
        side = max(round(math.sqrt(share * self.height * self.width)), least)
        if odd and side % 2 == 0:
            side += 1
        height = self.height if side > self.height else min(self.height, max(side, round(side**2 / self.width)))
        width = self.width if side > self.width else min(self.width, max(side, round(side**2 / self.height)))
        return height, width

    def corners(self, window: tuple[int, int], uniform: Tensor) -> Tensor:
        """Where windows begin in the flattened inputs, int64 `[...]`.

        uniform: two numbers in [0, 1) for each, `[..., 2]`: every place in the image is equally likely.
        """
        places = uniform.new_tensor([self.height - window[0] + 1, self.width - window[1] + 1])
        top, left = (uniform * places).long().unbind(-1)
        return top * self.width + left

    def offsets(self, window: tuple[int, int], device: torch.device) -> Tensor:
        """How far behind its corner the window's elements stand, channel by channel, int64 `[C * height * width]`."""
        return _offsets(self, window, device)


@lru_cache(maxsize=64)
def _offsets(image: ImageShape, window: tuple[int, int], device: torch.device) -> Tensor:
    channel, row, column = (torch.arange(size, device=device) for size in (image.channels, *window))
    return ((channel[:, None, None] * image.height + row[:, None]) * image.width + column).flatten()


def signs(uniform: Tensor) -> Tensor:
    """-1 or 1 for each uniform number in [0, 1), with equal chances."""
    return (uniform >= 0.5).to(uniform.dtype).mul_(2).sub_(1)
