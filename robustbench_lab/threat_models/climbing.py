"""A step of an attack in a region: along the steepest direction, and back into the region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Region


@runtime_checkable
class Cuttable(Protocol):
    """A region that can be looked at in parts without a copy of it."""

    def cut(self, start: int, stop: int) -> Region:
        """The region around samples that follow each other."""
        ...


@runtime_checkable
class Climbing(Protocol):
    """A region that takes a step in fewer passes over memory than its other methods together."""

    def climb(self, gradient: Tensor, x: Tensor, size: float) -> Tensor:
        """What `climbed` says, to the last bit; may overwrite both tensors."""
        ...


def climbed(region: Region, gradient: Tensor, x: Tensor, size: float) -> Tensor:
    """`x` `[N, ...]` after a step of `size` along which the loss rises most, in the region; may overwrite both."""
    if isinstance(region, Climbing):
        return region.climb(gradient, x, size)
    return region.project(x.add_(region.steepest(gradient, x), alpha=size))
