"""Histories with faults: what can be told of one without knowing how it came about.

As for corrupted images, an attack makes the faults with its own random numbers, so the set of all of them is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustbench_lab.errors import SkipCell

if TYPE_CHECKING:
    from robustbench_lab.sample_rng import SampleRng

_NO_DIRECTIONS = "faults have no steepest direction and no random points: use the attack 'faults'"


@dataclass(frozen=True, eq=False)
class Faulty:
    """Inputs that differ from the clean ones in what was measured only."""

    clean: Tensor
    """`[N, L, C]` in the data's own units."""
    unit: Tensor
    """The standard deviation of each series' training part, `[N, 1, C]`."""
    measured: Tensor
    """Bool `[N, L, C]`."""
    low: Tensor
    """The lowest valid values, `[N, 1, C]`."""
    high: Tensor
    history: int
    """Steps that lie in the past; the others hold what is known ahead."""

    @property
    def reachable(self) -> Tensor:
        """The samples of which something was measured, bool `[N]`."""
        return self.measured.flatten(1).any(1)

    def project(self, x: Tensor) -> Tensor:
        """The nearest input that `contains` allows, `[N, L, C]`."""
        return torch.where(self.measured, x.clamp(self.low, self.high), self.clean)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each `x` is finite, within the bounds, and changed in what was measured only, bool `[N]`."""
        within = x.isfinite() & (x >= self.low) & (x <= self.high)
        return torch.where(self.measured, within, x == self.clean).flatten(1).all(1)

    def distance(self, x: Tensor) -> Tensor:
        """The largest change of a value in the series' units, `[N]`, for want of a unit of severity."""
        return ((x - self.clean) / self.unit).abs().flatten(1).amax(1)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:  # noqa: ARG002
        """Not known: the kinds of faults are the attack's. Raises SkipCell."""
        raise SkipCell(_NO_DIRECTIONS)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        """Not known. Raises SkipCell."""
        raise SkipCell(_NO_DIRECTIONS)

    def select(self, index: Tensor) -> Faulty:
        """The region around some of the samples."""
        clean, unit = self.clean.index_select(0, index), self.unit.index_select(0, index)
        low, high = self.low.index_select(0, index), self.high.index_select(0, index)
        measured = self.measured.index_select(0, index)
        return replace(self, clean=clean, unit=unit, measured=measured, low=low, high=high)

    def masked(self, attackable: Tensor) -> Faulty:
        """The region of which only some values are within reach."""
        return replace(self, measured=self.measured & attackable)
