"""A region whose budget is in units of each series and not of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from robustbench_lab.contracts import Region
    from robustbench_lab.sample_rng import SampleRng


@runtime_checkable
class Scaled(Protocol):
    """A region whose budget is in units other than the data's."""

    @property
    def unit(self) -> Tensor:
        """What 1 of them is in the data's own, of a shape that broadcasts to the inputs' `[N, ...]`."""
        ...


@dataclass(frozen=True, eq=False)
class ScaledRegion:
    """The inputs whose quotients by `unit` lie in another region, within the data's bounds.

    The other region is around `clean / unit` and knows no bounds. Clean inputs lie within the bounds, so clipping to
    them brings every value nearer to its clean one, and nothing leaves a norm ball by it.
    """

    clean: Tensor
    """`[N, ...]` in the data's own units."""
    inner: Region
    unit: Tensor
    """Above 0, of a shape that broadcasts to the inputs' `[N, ...]`; the first size is N."""
    low: Tensor
    """The lowest valid values, of such a shape as well."""
    high: Tensor

    def project(self, x: Tensor) -> Tensor:
        """What the inner region makes of `x`, in its units, clipped to the bounds; overwrites `x`."""
        return self._back(self.inner.project(x.div_(self.unit)))

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """The inner region's, `[N, ...]`."""
        return self._back(self.inner.random_start(rng, draw))

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The step of size 1 in the series' units along which the loss rises most; overwrites `gradient`."""
        return self.inner.steepest(gradient.mul_(self.unit), x / self.unit).mul_(self.unit)

    def distance(self, x: Tensor) -> Tensor:
        """In the series' units, `[N]`."""
        return self.inner.distance(x / self.unit)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each `x` is in the inner region, up to float32 rounding, and within the bounds, bool `[N]`."""
        within = ((x >= self.low) & (x <= self.high)).flatten(1).all(1)
        return within & self.inner.contains(x / self.unit)

    def select(self, index: Tensor) -> ScaledRegion:
        """The region around some of the samples."""
        clean, unit = self.clean.index_select(0, index), self.unit.index_select(0, index)
        low, high = self.low.index_select(0, index), self.high.index_select(0, index)
        return ScaledRegion(clean, self.inner.select(index), unit, low, high)

    def _back(self, scaled: Tensor) -> Tensor:
        return scaled.mul_(self.unit).clamp_(self.low, self.high)
