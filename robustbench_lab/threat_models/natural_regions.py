"""The regions of natural changes: what can be told of an image without knowing how it was made.

An attack makes its candidates with its own random numbers, so that the set of all images it could have made is not
known: `contains` checks what every one of them keeps to, and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor

from robustbench_lab.errors import SkipCell

if TYPE_CHECKING:
    from robustbench_lab.contracts import Bounds
    from robustbench_lab.sample_rng import SampleRng

_TOLERANCE = 1e-5
"""Float32 rounding of a value, as a share of the data's range."""


@dataclass(frozen=True, eq=False)
class NaturalRegion:
    """What both regions share."""

    clean: Tensor
    """`[N, C, H, W]` float32 within the bounds."""
    bounds: Bounds

    def __post_init__(self) -> None:
        require_images(self.clean)

    def select(self, index: Tensor) -> Self:
        """The region around some of the samples: int64 indices `[M]`."""
        return replace(self, clean=self.clean.index_select(0, index))

    def distance(self, x: Tensor) -> Tensor:
        """The Euclidean length of `x - clean`, `[N]`, for want of a unit of severity that an image would show."""
        length: Tensor = torch.linalg.vector_norm((x - self.clean).flatten(1), dim=1)
        return length

    def project(self, x: Tensor) -> Tensor:  # noqa: ARG002
        """Not known. Raises SkipCell."""
        raise SkipCell(_NO_DIRECTIONS)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        """Not known. Raises SkipCell."""
        raise SkipCell(_NO_DIRECTIONS)

    def _within(self, x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
        """Whether each channel of `x` is finite and within limits (`[N, C]`) up to rounding, bool `[N]`."""
        slack = _TOLERANCE * self.bounds.width
        lowest, highest = x.flatten(2).aminmax(dim=2)
        return ((lowest >= low - slack) & (highest <= high + slack)).all(1)


_NO_DIRECTIONS = "natural changes have no projection and no steepest direction: use an attack made for them"


class CorruptionRegion(NaturalRegion):
    """Corrupted images."""

    def project(self, x: Tensor) -> Tensor:
        """The nearest image that `contains` allows, `[N, C, H, W]`: clipped to the bounds."""
        return x.clamp(self.bounds.low, self.bounds.high)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each `x` is finite and within the bounds, bool `[N]`.

        No more can be told: noise of any severity reaches every image, with some probability.
        """
        return self._within(x, self.bounds.low, self.bounds.high)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:  # noqa: ARG002
        """Not known: the kinds of corruption are the attack's. Raises SkipCell."""
        raise SkipCell("the corruption threat model has no random points of its own: use the attack 'corruptions'")


@dataclass(frozen=True, eq=False)
class SpatialRegion(NaturalRegion):
    """Images rotated by up to `rotation` degrees and shifted by up to `translation` of each side."""

    rotation: float
    translation: float

    def contains(self, x: Tensor) -> Tensor:
        """Whether each channel of `x` has only values between the lowest and the highest of its clean one and black.

        Interpolation between pixels and a black border makes no others. Whether some angle and shift give exactly
        `x` is not searched for.
        """
        lowest, highest = self.clean.flatten(2).aminmax(dim=2)
        return self._within(x, lowest.clamp(max=self.bounds.low), highest.clamp(min=self.bounds.low))

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """Each image at an angle and a shift drawn uniformly, `[N, C, H, W]`."""
        angle, across, down = rng.uniform((3,), draw).mul_(2).sub_(1).unbind(1)
        shift = torch.stack([across, down], dim=1) * self.translation
        return rotated_and_shifted(self.clean, angle * self.rotation, shift, self.bounds)


def rotated_and_shifted(images: Tensor, degrees: Tensor, shift: Tensor, bounds: Bounds) -> Tensor:
    """Images `[N, C, H, W]` turned about their centre and then shifted, by bilinear interpolation on a black border.

    degrees: `[N]`, counter-clockwise. shift: `[N, 2]`, to the right and down, as shares of width and height.
    """
    height, width = images.shape[2:]
    radians = degrees * (math.pi / 180)
    cos, sin = radians.cos(), radians.sin()
    # Where each output pixel comes from, in affine_grid's coordinates, in which both sides reach from -1 to 1.
    across = torch.stack([cos, -sin * (height / width)], dim=1)
    down = torch.stack([sin * (width / height), cos], dim=1)
    turn = torch.stack([across, down], dim=1)
    offset = -2 * (turn @ shift[:, :, None])
    grid = F.affine_grid(torch.cat([turn, offset], dim=2), list(images.shape), align_corners=False)
    moved = F.grid_sample(images - bounds.low, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.add_(bounds.low).clamp_(bounds.low, bounds.high)


def require_images(clean: Tensor) -> None:
    """Raise SkipCell where inputs are no images `[N, C, H, W]`."""
    if clean.ndim != 4:
        raise SkipCell(f"this threat model is for images [N, C, H, W]; the inputs are {list(clean.shape)}")
