"""Series as they were observed, with covariates and missing values, before they are cut into windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.forecasting import Role


@dataclass(frozen=True)
class Channels:
    """The names of what is observed: the forecast series, then past, known and static covariates."""

    series: tuple[str, ...]
    past: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    @property
    def observed(self) -> tuple[str, ...]:
        """Those that have a value at each step."""
        return (*self.series, *self.past, *self.known)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Of all of them, in order."""
        named = ((Role.SERIES, self.series), (Role.PAST, self.past), (Role.KNOWN, self.known))
        return (*(role for role, names in named for _ in names), *(Role.FIXED for _ in self.static))


@dataclass(frozen=True)
class ObservedSeries:
    """Series that were observed at the same times: all there are, or those of one member of a panel."""

    times: Sequence[str]
    """`[T]`, of each step, for the samples' ids."""
    values: NDArray[np.float64]
    """`[T, D]`: what `Channels.observed` names, NaN where a value is missing."""
    static: Sequence[float] = ()
    """`[S]`: what `Channels.static` names."""
    name: str = ""
    """Within its panel."""
    source: str = "series"
    """What messages call it."""


class Spread(NamedTuple):
    """What errors and budgets are in units of, from the training part alone."""

    unit: NDArray[np.float64]
    """Standard deviation of each observed channel, `[D]`; 1 where a covariate is constant."""
    varies: NDArray[np.bool_]
    """Whether it has one, `[D]`."""
    scale: NDArray[np.float64]
    """Mean absolute difference of each forecast series from its season before, `[C]`."""


def spread(training: NDArray[np.float64], channels: Channels, season: int, source: str) -> Spread:
    """Of the training part `[T, D]`, over the values that were observed. Raises UsageError."""
    count = len(channels.series)
    seen = np.isfinite(training)
    for place, name in enumerate(channels.observed):
        if not seen[:, place].any():
            raise UsageError(f"{source}: series '{name}' has no value in its training part: leave it out")
    # A standard deviation of equal numbers can be above 0 by rounding.
    unit = np.where(np.nanmax(training, axis=0) > np.nanmin(training, axis=0), np.nanstd(training, axis=0), 0.0)
    difference = np.abs(training[season:, :count] - training[:-season, :count])
    pairs = np.isfinite(difference).sum(axis=0)
    scale = np.nansum(difference, axis=0) / np.maximum(pairs, 1)
    for place, name in enumerate(channels.series):
        if not unit[place] > 0:
            raise UsageError(f"{source}: series '{name}' is constant in its training part: leave it out")
        if not pairs[place]:
            text = f"no two values {season} steps apart in its training part, so MASE has no scale: name another season"
            raise UsageError(f"{source}: series '{name}' has {text}")
        if not scale[place] > 0:
            raise UsageError(
                f"{source}: series '{name}' repeats itself exactly after {season} steps in its training part, so MASE "
                "has no scale: name another season"
            )
    return Spread(np.where(unit > 0, unit, 1.0), unit > 0, scale)


def filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[T, D]` with the last value before in place of a missing one; at the beginning the first one after."""
    seen = np.isfinite(values)
    steps = np.arange(len(values))[:, None]
    before = np.maximum.accumulate(np.where(seen, steps, -1), axis=0)
    source = np.where(before >= 0, before, seen.argmax(axis=0))
    return np.take_along_axis(values, source, axis=0)


def with_gaps(panel: Sequence[ObservedSeries]) -> tuple[int, ...]:
    """The observed channels that miss a value in any of the panel's series."""
    missing = np.any([np.isnan(one.values).any(axis=0) for one in panel], axis=0)
    return tuple(np.flatnonzero(missing).tolist())
