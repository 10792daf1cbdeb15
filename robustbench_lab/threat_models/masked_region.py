"""A region of which an adversary can reach some values only: an image without its padding, some steps of a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from robustbench_lab.threat_models.reach import reachable

if TYPE_CHECKING:
    from robustbench_lab.contracts import Region
    from robustbench_lab.sample_rng import SampleRng


@runtime_checkable
class Maskable(Protocol):
    """A region whose values depend on each other, such as those of neighbouring steps: it masks itself."""

    def masked(self, attackable: Tensor) -> Region:
        """The region of which only some values (bool, of a shape that broadcasts) are within reach."""
        ...


def masked(region: Region, attackable: Tensor) -> Region:
    """The inputs of a region that differ from the clean ones where `attackable` (bool `[N, ...]`) says so only."""
    return region.masked(attackable) if isinstance(region, Maskable) else MaskedRegion(region, attackable)


@dataclass(frozen=True, eq=False)
class MaskedRegion:
    """The inputs of another region that differ from the clean ones where `attackable` says so, and nowhere else."""

    region: Region
    attackable: Tensor
    """Bool, of a shape that broadcasts to the inputs' `[N, ...]`; the first size is N."""

    @property
    def clean(self) -> Tensor:
        return self.region.clean

    @property
    def reachable(self) -> Tensor:
        """The samples with a value within reach, bool `[N]`."""
        return self.attackable.flatten(1).any(1) & reachable(self.region)

    def project(self, x: Tensor) -> Tensor:
        """What is out of reach becomes clean again, before the other region's projection and after it."""
        return self._within_reach(self.region.project(self._within_reach(x)))

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """The other region's start, where it is within reach."""
        return self._within_reach(self.region.random_start(rng, draw))

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The other region's direction for the gradient within reach; overwrites `gradient`."""
        return self.region.steepest(gradient.mul_(self.attackable), x).mul_(self.attackable)

    def distance(self, x: Tensor) -> Tensor:
        """The other region's, `[N]`."""
        return self.region.distance(x)

    def contains(self, x: Tensor) -> Tensor:
        """Whether the other region contains it, and nothing out of reach has changed, bool `[N]`."""
        untouched = (self.attackable | (x == self.clean)).flatten(1).all(1)
        return untouched & self.region.contains(x)

    def masked(self, attackable: Tensor) -> MaskedRegion:
        """The inputs that differ where both masks say so."""
        return MaskedRegion(self.region, self.attackable & attackable)

    def select(self, index: Tensor) -> MaskedRegion:
        """The region around some of the samples."""
        return MaskedRegion(self.region.select(index), self.attackable.index_select(0, index))

    def _within_reach(self, x: Tensor) -> Tensor:
        return torch.where(self.attackable, x, self.clean)
