"""The geometry of the patch threat model: images that differ from the clean one within a single square window."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor

if TYPE_CHECKING:
    from robustbench_lab.contracts import Bounds
    from robustbench_lab.sample_rng import SampleRng

_TOLERANCE = 1e-6
"""Float32 rounding at a bound, as a share of the data's range."""


@dataclass(frozen=True, eq=False)
class PatchRegion:
    """Around each image, those in which one window of `side` x `side` pixels has any values within the bounds."""

    clean: Tensor
    """`[N, C, H, W]` float32 within the bounds."""
    eps: float
    """The window's share of the area, as the threat model gives it."""
    bounds: Bounds
    side: int

    def select(self, index: Tensor) -> Self:
        """The region around some of the samples: int64 indices `[M]`."""
        return replace(self, clean=self.clean.index_select(0, index))

    def distance(self, x: Tensor) -> Tensor:
        """The area of the smallest square that holds every changed pixel, as a share of the image's area, `[N]`."""
        (top, bottom), (left, right) = self._changed(x)
        side = torch.maximum(bottom - top, right - left).clamp(min=0)
        return side.square() / math.prod(self.clean.shape[2:])

    def contains(self, x: Tensor) -> Tensor:
        """Whether all changed pixels lie in one window and all values within the bounds, bool `[N]`."""
        (top, bottom), (left, right) = self._changed(x)
        fits = (bottom - top <= self.side) & (right - left <= self.side)
        slack = _TOLERANCE * self.bounds.width
        lowest, highest = x.flatten(1).aminmax(dim=1)
        return fits & (lowest >= self.bounds.low - slack) & (highest <= self.bounds.high + slack)

    def project(self, x: Tensor) -> Tensor:
        """The nearest image of the region in the Euclidean sense: the window is kept that brings it nearest to `x`."""
        clipped = x.clamp(self.bounds.low, self.bounds.high)
        # What the clipped value saves of the squared distance that the clean one has: (x - clean)^2 - (x - clipped)^2.
        saved = self._window_sums((clipped - self.clean) * (2 * x - self.clean - clipped))
        return torch.where(self._mask(*_largest(saved)), clipped, self.clean)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """Uniform values in a window placed uniformly, `[N, C, H, W]`."""
        channels, height, width = self.clean.shape[1:]
        top = rng.integers(height - self.side + 1, (), f"{draw}/top")
        left = rng.integers(width - self.side + 1, (), f"{draw}/left")
        values = rng.uniform((channels, height, width), draw).mul_(self.bounds.width).add_(self.bounds.low)
        return torch.where(self._mask(top, left), values, self.clean)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The sign of the gradient in one window, `[N, C, H, W]`; a step of `eps` crosses the data's whole range.

        The window holds what has changed already. Where that leaves a choice, it is the one in which a linear loss
        would rise most.
        """
        gradient = gradient.nan_to_num_(nan=0.0)
        room = torch.where(gradient > 0, self.bounds.high - x, self.bounds.low - x)
        gain = self._window_sums(room * gradient)
        holds = self._holds_all_changes(x)
        gain = torch.where(holds | ~holds.flatten(1).any(1)[:, None, None], gain, -torch.inf)
        return self._mask(*_largest(gain)) * gradient.sign_() * (self.bounds.width / self.eps)

    # ------------------------------------------------------------ windows, by their top left pixel

    def _window_sums(self, values: Tensor) -> Tensor:
        """The sum over each window, relative to other windows only, `[N, H - side + 1, W - side + 1]`."""
        return F.avg_pool2d(values.sum(1, keepdim=True), self.side, stride=1).squeeze(1)

    def _mask(self, top: Tensor, left: Tensor) -> Tensor:
        """Whether a pixel is in each sample's window, bool `[N, 1, H, W]`."""
        row, column = (torch.arange(length, device=top.device) for length in self.clean.shape[2:])
        in_rows = (row >= top[:, None]) & (row < top[:, None] + self.side)
        in_columns = (column >= left[:, None]) & (column < left[:, None] + self.side)
        return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]

    def _changed(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """First changed row and the one after the last, and the same of columns, `[N]` each."""
        changed = (x != self.clean).any(1)
        return _ends(changed.any(2)), _ends(changed.any(1))

    def _holds_all_changes(self, x: Tensor) -> Tensor:
        """Whether each window holds all that has changed, bool `[N, H - side + 1, W - side + 1]`."""
        (top, bottom), (left, right) = (tuple(end[:, None] for end in ends) for ends in self._changed(x))
        height, width = self.clean.shape[2:]
        row = torch.arange(height - self.side + 1, device=x.device)
        column = torch.arange(width - self.side + 1, device=x.device)
        rows = (row <= top) & (row + self.side >= bottom)
        columns = (column <= left) & (column + self.side >= right)
        return rows[:, :, None] & columns[:, None, :]


def _ends(marked: Tensor) -> tuple[Tensor, Tensor]:
    """Of marks `[N, L]` the first and the one after the last, `[N]`; L and 0 where there is none."""
    position = torch.arange(marked.shape[1], device=marked.device)
    first = torch.where(marked, position, marked.shape[1]).amin(1)
    after = torch.where(marked, position + 1, 0).amax(1)
    return first, after


def _largest(of_windows: Tensor) -> tuple[Tensor, Tensor]:
    """Top and left of each sample's window with the largest value, `[N]` each."""
    best = of_windows.flatten(1).argmax(1)
    columns = of_windows.shape[2]
    return best // columns, best % columns
