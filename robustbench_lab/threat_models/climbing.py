"""A step of an attack in a region: along the steepest direction, and back into the region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Region


class Cuttable(Protocol):
    """A region that can be looked at in parts without a copy of it."""

    def cut(self, start: int, stop: int) -> Region:
        """The region around samples that follow each other."""
        ...


class Climbing(Protocol):
    """A region that takes a step in fewer passes over memory than its other methods together."""

    def climb(self, gradient: Tensor, x: Tensor, size: float) -> Tensor:
        """What `climbed` says, to the last bit; may overwrite both tensors."""
        ...


def is_cuttable(region: Region) -> TypeGuard[Cuttable]:
    """Whether a region can be cut; asked at every step, and isinstance takes a protocol 60 times as long."""
    return hasattr(region, "cut")


def _is_climbing(region: Region) -> TypeGuard[Climbing]:
    return hasattr(region, "climb")


def climbed(region: Region, gradient: Tensor, x: Tensor, size: float) -> Tensor:
    """`x` `[N, ...]` after a step of `size` along which the loss rises most, in the region; may overwrite both."""
    if _is_climbing(region):
        return region.climb(gradient, x, size)
    return region.project(x.add_(region.steepest(gradient, x), alpha=size))
