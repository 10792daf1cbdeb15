"""Where and how one patch is shown on images: places, angles, sizes, light and noise; differentiable in the patch.

The transformations are those of Brown et al. 2017 and of Thys et al. 2019 (https://arxiv.org/abs/1904.08653, section
3.3), which stand for what happens to a patch that is printed and photographed (Athalye et al. 2018).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.threat_models.masked_region import MaskedRegion
from robustbench_lab.threat_models.painted_region import PaintedRegion
from robustbench_lab.threat_models.patch import Patch


@dataclass(frozen=True)
class Changes:
    """The largest change of each kind; 0: none."""

    rotation: float = 0.0
    """Degrees, either way. Corners that leave the window are cut off."""
    shrinking: float = 0.0
    """Share of the side that the patch may lose."""
    brightness: float = 0.0
    """Share of the values by which they may become larger or smaller."""
    contrast: float = 0.0
    """Share of the differences from the middle of the data's range, likewise."""
    noise: float = 0.0
    """Added to each value, either way, as a share of the data's range."""


@dataclass(frozen=True)
class Placing:
    """Where and how the patch is on each of A images, in up to M windows of each."""

    windows: Tensor
    """int64 `[A, M, 3]`: top, left and side; side 0: none."""
    degrees: Tensor
    """`[A, M]`."""
    size: Tensor
    """Share of the window's side, `[A, M]`."""
    brightness: Tensor
    """Factor on the patch's values above the lowest, `[A]`."""
    contrast: Tensor
    """Factor on the differences from the middle of the data's range, `[A]`."""
    noise: Tensor | float
    """Added to the image where the patch is, `[A, C, H, W]`."""

    @classmethod
    def drawn(cls, problem: AttackProblem, draw: str, changes: Changes) -> "Placing":
        """A random place for each open sample where the threat model leaves the choice, and random changes."""
        windows = windows_of(problem, draw)
        degrees, size = (2 * problem.uniform(f"{draw}/turn", (windows.shape[1], 2)) - 1).unbind(2)
        brightness, contrast = (2 * problem.uniform(f"{draw}/light", (2,)) - 1).unbind(1)
        noise = 0.0
        if changes.noise:
            spread = changes.noise * problem.bounds.width
            noise = (2 * problem.uniform(f"{draw}/noise") - 1) * spread
        return cls(
            windows=windows,
            degrees=degrees * changes.rotation,
            size=1 - (size + 1) / 2 * changes.shrinking,
            brightness=1 + brightness * changes.brightness,
            contrast=1 + contrast * changes.contrast,
            noise=noise,
        )

    def paste(self, patch: Tensor, problem: AttackProblem) -> Tensor:
        """The open samples with the patch `[C, S, S]` on them, `[A, C, H, W]`."""
        clean, bounds = problem.clean, problem.bounds
        source, visible = self._sources(clean.shape[2], clean.shape[3])
        stack = patch.expand(len(clean), *patch.shape)
        shown = F.grid_sample(stack, source, mode="bilinear", padding_mode="border", align_corners=False)
        middle = (bounds.low + bounds.high) / 2
        shown = (shown - middle) * _per_image(self.contrast) + middle
        shown = (shown - bounds.low) * _per_image(self.brightness) + bounds.low + self.noise
        return torch.where(visible[:, None], shown.clamp(bounds.low, bounds.high), clean)

    def _sources(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Where in the patch each pixel looks, `[A, H, W, 2]` from -1 to 1, and whether it shows it, `[A, H, W]`.

        One window after another: of two that overlap the later one is seen.
        """
        count = len(self.windows)
        source = torch.zeros(count, height, width, 2, device=self.windows.device)
        visible = torch.zeros(count, height, width, dtype=torch.bool, device=self.windows.device)
        for window, degrees, size in zip(
            self.windows.unbind(1), self.degrees.unbind(1), self.size.unbind(1), strict=True
        ):
            place, inside = _within_window(window, degrees, size, height, width)
            source = torch.where(inside[..., None], place, source)
            visible |= inside
        return source, visible


def windows_of(problem: AttackProblem, draw: str) -> Tensor:
    """The windows that may be painted, int64 `[A, M, 3]`; of a patch that may be anywhere, one at a random place."""
    region = problem.region
    while isinstance(region, MaskedRegion):
        region = region.region
    if isinstance(region, PaintedRegion):
        return region.windows
    if not isinstance(problem.threat_model, Patch):
        raise SkipCell("a patch needs a threat model that says where: patch, placed-patch or object-patch")
    height, width = problem.clean.shape[2:]
    side = problem.threat_model.side(height, width)
    down, across = problem.uniform(f"{draw}/place", (2,)).unbind(1)
    top, left = (down * (height - side + 1)).long(), (across * (width - side + 1)).long()
    return torch.stack([top, left, torch.full_like(top, side)], dim=1)[:, None]


def _within_window(window: Tensor, degrees: Tensor, size: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The same for one window `[A, 3]` of each image."""
    top, left, side = window.unbind(1)
    reach = side.clamp_min(1)[:, None]
    rows, columns = (torch.arange(length, device=window.device) for length in (height, width))
    down = ((2 * (rows - top[:, None]) + 1 - side[:, None]) / reach)[:, :, None]
    across = ((2 * (columns - left[:, None]) + 1 - side[:, None]) / reach)[:, None, :]
    radians = degrees * (math.pi / 180)
    cos, sin = ((part / size)[:, None, None] for part in (radians.cos(), radians.sin()))
    place = torch.stack([across * cos - down * sin, across * sin + down * cos], dim=-1)
    inside = (torch.maximum(down.abs(), across.abs()) < 1) & (place.abs().amax(-1) < 1)
    return place, inside & (side > 0)[:, None, None]


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
