"""Images that differ from the clean one within given pixels, where any value within the bounds will do.

Patches in fixed places and patches on objects have such a region: it is a box, so that each operation is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from robustbench_lab.contracts import Bounds
    from robustbench_lab.sample_rng import SampleRng

_TOLERANCE = 1e-6
"""Float32 rounding at a bound, as a share of the data's range."""


@dataclass(frozen=True, eq=False)
class PaintedRegion:
    """Around each image, those in which some pixels have any values within the bounds."""

    clean: Tensor
    """`[N, C, H, W]` float32 within the bounds."""
    eps: float
    """The threat model's budget: the paint's share of the image, or of the objects."""
    bounds: Bounds
    windows: Tensor
    """int64 `[N, M, 3]`: top, left and side in pixels of each square that may be painted; side 0: no square."""
    paintable: Tensor
    """Bool `[N, 1, H, W]`: the pixels within the windows."""

    @property
    def reachable(self) -> Tensor:
        """The samples with a pixel that may be painted, bool `[N]`."""
        return self.paintable.flatten(1).any(1)

    def select(self, index: Tensor) -> Self:
        """The region around some of the samples: int64 indices `[M]`."""
        return replace(
            self,
            clean=self.clean.index_select(0, index),
            windows=self.windows.index_select(0, index),
            paintable=self.paintable.index_select(0, index),
        )

    def distance(self, x: Tensor) -> Tensor:
        """The share of the paintable pixels that have changed, times `eps`, `[N]`; 0 where none may change."""
        changed = (x != self.clean).any(1, keepdim=True)
        return self.eps * changed.flatten(1).sum(1) / self.paintable.flatten(1).sum(1).clamp_min(1)

    def contains(self, x: Tensor) -> Tensor:
        """Whether nothing has changed outside the paintable pixels and all values are within the bounds, bool `[N]`."""
        untouched = (self.paintable | (x == self.clean)).flatten(1).all(1)
        slack = _TOLERANCE * self.bounds.width
        lowest, highest = x.flatten(1).aminmax(dim=1)
        return untouched & (lowest >= self.bounds.low - slack) & (highest <= self.bounds.high + slack)

    def project(self, x: Tensor) -> Tensor:
        """The nearest image of the region, `[N, C, H, W]`."""
        return torch.where(self.paintable, x.clamp(self.bounds.low, self.bounds.high), self.clean)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """Uniform values in the paintable pixels, `[N, C, H, W]`."""
        values = rng.uniform(tuple(self.clean.shape[1:]), draw).mul_(self.bounds.width).add_(self.bounds.low)
        return torch.where(self.paintable, values, self.clean)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        """The sign of the gradient in the paintable pixels; a step of `eps` crosses the data's whole range."""
        return gradient.nan_to_num_(nan=0.0).sign_().mul_(self.paintable).mul_(self.bounds.width / self.eps)
