"""What the regions share that are part of a box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from torch import Tensor

if TYPE_CHECKING:
    from robustbench_lab.threat_models.series_regions.box import SeriesBox


@dataclass(frozen=True, eq=False)
class Boxed:
    """Some of the inputs of a box."""

    box: SeriesBox

    @property
    def clean(self) -> Tensor:
        return self.box.clean

    @property
    def unit(self) -> Tensor:
        return self.box.unit

    @property
    def reachable(self) -> Tensor:
        """The samples with a value that may change, bool `[N]`."""
        return self.box.reachable

    def distance(self, x: Tensor) -> Tensor:
        """The largest change of a value, in the series' units, `[N]`."""
        return self.box.distance(x)

    def select(self, index: Tensor) -> Self:
        """The region around some of the samples."""
        return replace(self, box=self.box.select(index))

    def masked(self, attackable: Tensor) -> Self:
        """The region of which only some values are within reach."""
        return replace(self, box=self.box.masked(attackable))

    @property
    def relaxed(self) -> Self | None:
        """The same, where nothing has to be a whole number; None where nothing has to be."""
        box = self.box.relaxed
        return None if box is None else replace(self, box=box)
