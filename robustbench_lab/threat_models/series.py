"""The threat model of forecasters: changes of a series' history, in units of the series' own spread.

This module imports no torch; the geometry is in series_regions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.threat_models.norm_balls import L2
from robustbench_lab.threat_models.series_regions.channels import Of

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Region
    from robustbench_lab.threat_models.series_regions.box import SeriesBox

Count = Annotated[int, Field(ge=1)]
Channels = Sequence[Annotated[int, Field(ge=0)]]
OPEN = Bounds(-math.inf, math.inf)
FORMS = ("steps", "most_channels", "smooth", "monotone")
"""Each makes a region of its own, and so there is at most one of them."""


@dataclass(frozen=True)
class Series:
    """The values of a history may move by at most `eps` standard deviations of their own series, measured in a norm.

    The standard deviation is that of the series' training part (`unit` of the samples' targets, `input_unit` where
    there are covariates), so the same budget means the same for every series of a dataset, whatever its units, and an
    adversary cannot widen it.
    """

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    """linf: of each value; l2: the Euclidean length of the change of the whole window, all channels together."""
    last: Count | None = None
    """So many of the most recent steps may change, and the future of known covariates; None: all."""
    channels: Channels | None = None
    """The numbers, from 0, of the channels that may change; None: all."""
    of: Of = "all"
    """The channels that may change: the series that are forecast, their covariates, or both."""
    steps: Count | None = None
    """At most so many steps differ, of the adversary's choice, each in all channels."""
    most_channels: Count | None = None
    """At most so many channels differ, of the adversary's choice, each at all steps."""
    relative: bool = False
    """The budget is a share of each value itself: `x (1 + d)` with d of size `eps` at most (Dang-Nhu et al. 2020,
    https://arxiv.org/abs/2003.03778; Liu et al. 2023, https://arxiv.org/abs/2207.09572). What is 0 stays 0."""
    smooth: Annotated[float, Field(gt=0)] | None = None
    """The changes of two neighbouring steps differ by so many standard deviations at most."""
    monotone: bool = False
    """A channel does not fall from one step to the next where it does not fall in the clean history."""
    integer: bool = False
    """Values that are whole numbers stay whole numbers."""

    def check(self, bounds: Bounds) -> None:  # noqa: ARG002 (a budget in units of the series has no upper end)
        """Raise UsageError unless `eps` is a finite number above 0, and the other parameters go together."""
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise UsageError(f"series eps={self.eps:g}: give a number of standard deviations above 0, such as 0.1")
        asked = [name for name in FORMS if getattr(self, name)]
        if len(asked) > 1:
            raise UsageError(f"series: {' and '.join(asked)} do not go together yet: give one of them")
        linf_only = [*asked, *(["integer"] if self.integer else [])]
        if self.norm == "l2" and linf_only:
            raise UsageError(f"series: {' and '.join(linf_only)} are known in norm='linf' only")
        if self.smooth and self.relative:
            raise UsageError(
                "series: smooth and relative do not go together: one is in units of the series, one is not"
            )
        if self.smooth and self.integer:
            raise UsageError("series: smooth and integer do not go together: whole numbers differ by 1 at least")

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> Region:
        """The region around inputs `[N, L, C]` with the targets of task `forecasting`. Raises SkipCell."""
        from robustbench_lab.threat_models.series_regions.channels import limits, spread

        own, (low, high) = spread("series", clean, targets), limits(clean, bounds, targets)
        unit = _size(clean, own) if self.relative else own
        reach = self._reach(clean, targets)
        if self.norm == "l2":
            from robustbench_lab.threat_models.masked_region import MaskedRegion
            from robustbench_lab.threat_models.scaled_region import ScaledRegion

            region = ScaledRegion(clean, L2(self.eps).around(clean / unit, OPEN), unit, low, high)
            return region if reach is None else MaskedRegion(region, reach)
        from robustbench_lab.threat_models.series_regions.box import SeriesBox

        box = SeriesBox.around(clean, unit, self.eps, low, high, integer=self.integer)
        return self._form(box if reach is None else box.masked(reach), own)

    def _form(self, box: SeriesBox, spread: Tensor) -> Region:
        """The part of a box that the adversary may choose from."""
        if self.steps is not None or self.most_channels is not None:
            from robustbench_lab.threat_models.series_regions.few import Few

            return Few(box, self.steps or self.most_channels or 0, axis=1 if self.steps else 2)
        if self.smooth is not None:
            from robustbench_lab.threat_models.series_regions.smooth import Smooth

            return Smooth(box, self.smooth * spread, self.eps / self.smooth)
        if self.monotone:
            from robustbench_lab.threat_models.series_regions.monotone import Monotone

            if box.whole is not None and not bool(box.whole.all()):
                raise SkipCell("series: monotone and integer go together where all values are whole numbers only")
            return Monotone(box)
        return box

    def _reach(self, clean: Tensor, targets: dict[str, Tensor]) -> Tensor | None:
        """Which values may change, bool `[N, L, C]`; None: all."""
        from robustbench_lab.threat_models.series_regions.channels import ROLES, chosen, history_steps

        of = chosen("series", self.of, targets, ROLES[self.of])
        if of is None and self.last is None and self.channels is None and not self.relative:
            return None
        reach = clean.new_ones(clean.shape).bool() if of is None else of.expand(clean.shape).clone()
        if self.relative:
            reach &= clean != 0
        if self.last is not None:
            history = history_steps(clean, targets)
            if self.last > history:
                raise SkipCell(f"series(last={self.last}): a history has {history} steps only")
            reach[:, : history - self.last] = False
        if self.channels is not None:
            if beyond := [one for one in self.channels if one >= clean.shape[2]]:
                raise SkipCell(f"series(channels={beyond}): the data have {clean.shape[2]} series, numbered from 0")
            reach[:, :, [one for one in range(clean.shape[2]) if one not in self.channels]] = False
        return reach


def _size(clean: Tensor, spread: Tensor) -> Tensor:
    """The size of each value, `[N, L, C]`; where that is 0 the standard deviation, which nothing is measured in."""
    size = clean.abs()
    return size.where(size > 0, spread)
