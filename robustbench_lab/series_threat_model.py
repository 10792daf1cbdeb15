"""The threat model of forecasters: changes of a series' history, in units of the series' own spread.

This module imports no torch; the geometry is in scaled_region.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.threat_models import L2, Linf

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Region

BALLS: dict[str, type[Linf | L2]] = {"linf": Linf, "l2": L2}
OPEN = Bounds(-math.inf, math.inf)


@dataclass(frozen=True)
class Series:
    """The values of a history may move by at most `eps` standard deviations of their own series, measured in a norm.

    The standard deviation is that of the series' training part (`unit` of the samples' targets), so the same budget
    means the same for every series of a dataset, whatever its units, and an adversary cannot widen it.
    """

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    """linf: of each value; l2: the Euclidean length of the change of the whole window, all channels together."""
    last: Annotated[int, Field(ge=1)] | None = None
    """So many of the most recent steps may change; None: all."""
    channels: Sequence[Annotated[int, Field(ge=0)]] | None = None
    """The numbers, from 0, of the series that may change; None: all."""

    def check(self, bounds: Bounds) -> None:  # noqa: ARG002 (a budget in units of the series has no upper end)
        """Raise UsageError unless `eps` is a finite number above 0."""
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise UsageError(f"series eps={self.eps:g}: give a number of standard deviations above 0, such as 0.1")

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> Region:
        """The region around histories `[N, L, C]` with the targets of task `forecasting`. Raises SkipCell."""
        from robustbench_lab.masked_region import MaskedRegion
        from robustbench_lab.scaled_region import ScaledRegion

        if not isinstance(targets, dict) or "unit" not in targets:
            raise SkipCell("series needs the standard deviation of each series: it is for forecasting datasets")
        unit = targets["unit"].to(clean.dtype).reshape(len(clean), *(1,) * (clean.ndim - 2), -1)  # [N, 1, C]
        region = ScaledRegion(clean, self._ball.around(clean / unit, OPEN), unit, bounds)
        if self.last is None and self.channels is None:
            return region
        return MaskedRegion(region, self._reach(clean))

    @property
    def _ball(self) -> Linf | L2:
        return BALLS[self.norm](self.eps)

    def _reach(self, clean: Tensor) -> Tensor:
        """Which values may change, bool `[N, L, C]`."""
        import torch

        _, steps, series = clean.shape
        if self.last is not None and self.last > steps:
            raise SkipCell(f"series(last={self.last}): a history has {steps} steps only")
        if beyond := [one for one in self.channels or () if one >= series]:
            raise SkipCell(f"series(channels={beyond}): the data have {series} series, numbered from 0")
        reach = torch.zeros(steps, series, dtype=torch.bool, device=clean.device)
        columns = list(range(series)) if self.channels is None else list(self.channels)
        reach[-(self.last or steps) :, columns] = True
        return reach.expand(len(clean), -1, -1)
