"""Histories that never fall where the clean ones do not: readings of a meter that counts up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustbench_lab.threat_models.series_regions.along_gradient import along_gradient
from robustbench_lab.threat_models.series_regions.boxed import Boxed
from robustbench_lab.threat_models.series_regions.isotonic import bounded_isotonic

if TYPE_CHECKING:
    from robustbench_lab.sample_rng import SampleRng
    from robustbench_lab.threat_models.series_regions.box import SeriesBox


@dataclass(frozen=True, eq=False)
class Monotone(Boxed):
    """The inputs of a box that do not fall from one step to the next, channel by channel.

    Where a clean history falls itself (a meter that was exchanged), so may they.
    """

    def project(self, x: Tensor) -> Tensor:
        """The region's nearest points, `[N, L, C]`: isotonic regression within the box."""
        inside = self.contains(x)
        return x if bool(inside.all()) else torch.where(inside[:, None, None], x, self._isotonic(x))

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """The nearest to a uniform point of the box, `[N, L, C]`."""
        return self.project(self.box.random_start(rng, draw))

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002 (the protocol's)
        """Along the gradient: see along_gradient.py; overwrites `gradient`."""
        return along_gradient(gradient, self.box)

    def contains(self, x: Tensor) -> Tensor:
        """Whether the box contains it, and nothing falls that did not, bool `[N]`."""
        rising = (x.diff(dim=1) >= 0) | self._begins[:, 1:]
        return rising.flatten(1).all(1) & self.box.contains(x)

    def _isotonic(self, x: Tensor) -> Tensor:
        box = self._rising_box
        columns = [_as_rows(one.double()) for one in (x, box.lowest, box.highest)]
        nearest = bounded_isotonic(columns[0], columns[1], columns[2], _as_rows(self._begins))
        steps, channels = self.clean.shape[1:]
        nearest = nearest.reshape(-1, channels, steps).transpose(1, 2).to(self.clean.dtype)
        # Of a problem in whole numbers the rounded solution is a solution.
        return box.project(nearest.contiguous())

    @cached_property
    def _begins(self) -> Tensor:
        """The first step, and those at which the clean history falls, bool `[N, L, C]`."""
        falls = self.clean.diff(dim=1) < 0
        return torch.cat([torch.ones_like(falls[:, :1]), falls], dim=1)

    @cached_property
    def _rising_box(self) -> SeriesBox:
        """What the box leaves to histories that do not fall: lowest and highest values that do not fall either."""
        part = self._begins.cumsum(1)
        lowest, highest = self.box.lowest.clone(), self.box.highest.clone()
        for step in range(1, lowest.shape[1]):
            goes_on = part[:, step] == part[:, step - 1]
            lowest[:, step] = torch.where(goes_on, torch.maximum(lowest[:, step], lowest[:, step - 1]), lowest[:, step])
        for step in range(lowest.shape[1] - 2, -1, -1):
            goes_on = part[:, step] == part[:, step + 1]
            highest[:, step] = torch.where(
                goes_on, torch.minimum(highest[:, step], highest[:, step + 1]), highest[:, step]
            )
        return replace(self.box, lowest=lowest, highest=highest)


def _as_rows(x: Tensor) -> Tensor:
    """`[N, L, C]` to `[N C, L]`."""
    return x.transpose(1, 2).flatten(0, 1)
