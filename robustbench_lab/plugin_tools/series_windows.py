"""Series to windows: a history, and the steps that follow, for datasets of the task `forecasting`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.errors import UsageError, did_you_mean

Split = Literal["test", "validation", "train"]
Parts = tuple[float, float, float]
OPEN = Bounds(-math.inf, math.inf)


@dataclass(frozen=True)
class WindowShape:
    """How a series is cut."""

    history: int
    """Steps that a model sees."""
    horizon: int
    """Steps that it forecasts."""
    season: int
    """Steps after which the series resembles itself: MASE is in units of the forecast that repeats the last season."""
    stride: int | None = None
    """Steps from one window to the next; None: the horizon, so that no step is forecast twice."""
    parts: Parts = (0.7, 0.1, 0.2)
    """Training, validation and test part, in this order: shares of the series, or numbers of steps where above 1."""


class SeriesWindows:
    """Windows of one part of some series that were observed at the same times.

    Targets are those of task `forecasting`. Every future lies within the part; the history of its first windows reaches
    back into the part before, as in the usual benchmarks. What errors and budgets are in units of (`scale`, `unit`)
    comes from the training part alone.
    """

    classes = None

    def __init__(
        self,
        values: NDArray[np.float64],
        times: Sequence[str],
        names: Sequence[str],
        shape: WindowShape,
        *,
        source: str,
        split: Split = "test",
        bounds: Bounds = OPEN,
    ) -> None:
        """values: `[T, C]`, finite. times: `[T]`, of each step, for the samples' ids. source: for messages and ids."""
        if split not in get_args(Split):
            raise UsageError(f"{source}: there is no split '{split}'.{did_you_mean(split, get_args(Split))}")
        self.bounds = bounds
        self.shape = shape
        ends = _ends(len(values), shape, source)
        first, last = _part(ends, split, shape)
        self._starts = np.arange(first, last - shape.horizon + 1, shape.stride or shape.horizon)
        if not len(self._starts):
            raise UsageError(
                f"{source}: the {split} part has {max(0, last - first)} steps to forecast, too few for a horizon of "
                f"{shape.horizon}: choose a shorter one or other parts"
            )
        self.unit, self.scale = _spread(values[: ends[0]], names, shape.season, source)
        self.sample_ids: tuple[str, ...] = tuple(f"{split}/{times[start]}" for start in self._starts.tolist())
        self.revision = _revision(values, times, names, shape, split)
        self._values = torch.from_numpy(values).float()

    def load(self, indices: Sequence[int]) -> Samples:
        """Histories float32 `[N, L, C]`, and `future` `[N, H, C]`, `scale` and `unit` `[N, C]`, `start` `[N]`."""
        start = torch.from_numpy(self._starts)[list(indices)]
        history = start[:, None] + torch.arange(-self.shape.history, 0)
        future = start[:, None] + torch.arange(self.shape.horizon)
        units = {"scale": self.scale, "unit": self.unit}
        constants = {name: torch.from_numpy(one).float().expand(len(start), -1) for name, one in units.items()}
        return Samples(self._values[history], {"future": self._values[future], "start": start, **constants})

    @property
    def training_part(self) -> NDArray[np.float32]:
        """The values that units come from, `[T, C]`, for those who train models."""
        part: NDArray[np.float32] = self._values[: _ends(len(self._values), self.shape, "")[0]].numpy()
        return part


def _ends(steps: int, shape: WindowShape, source: str) -> tuple[int, int, int]:
    """Where the training, validation and test parts end."""
    lengths = [round(one * steps) if one <= 1 else round(one) for one in shape.parts]
    if min(shape.parts) < 0 or lengths[0] < 1:
        raise UsageError(f"{source}: parts={list(shape.parts)}: give three shares or numbers of steps, from 0")
    # Shares are rounded one by one; what that adds to the whole is taken from the test part.
    excess = sum(lengths) - steps
    if excess > 2:
        raise UsageError(f"{source}: parts={list(shape.parts)} need {sum(lengths)} steps, the series have {steps}")
    lengths[2] -= max(0, excess)
    least = shape.history + shape.horizon
    if lengths[0] < max(least, shape.season + 1):
        raise UsageError(
            f"{source}: {steps} steps, of which {lengths[0]} to train, are too few for windows of {shape.history} and "
            f"{shape.horizon} and a season of {shape.season}: choose shorter ones, or a longer series"
        )
    first, second, third = lengths
    return first, first + second, first + second + third


def _part(ends: tuple[int, int, int], split: Split, shape: WindowShape) -> tuple[int, int]:
    """The first step that the split's windows forecast, and the step after the last one."""
    if split == "train":
        return shape.history, ends[0]
    return (ends[0], ends[1]) if split == "validation" else (ends[1], ends[2])


def _spread(
    training: NDArray[np.float64], names: Sequence[str], season: int, source: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The standard deviation of each series, and the mean absolute difference from the season before, `[C]` each."""
    unit, scale = training.std(axis=0), np.abs(training[season:] - training[:-season]).mean(axis=0)
    for name, spread, difference in zip(names, unit, scale, strict=True):
        if not spread > 0:
            raise UsageError(f"{source}: series '{name}' is constant in its training part: leave it out")
        if not difference > 0:
            raise UsageError(
                f"{source}: series '{name}' repeats itself exactly after {season} steps in its training part, so MASE "
                "has no scale: name another season"
            )
    return unit, scale


def _revision(
    values: NDArray[np.float64], times: Sequence[str], names: Sequence[str], shape: WindowShape, split: str
) -> str:
    """SHA-256 over the values and times, and how they are cut."""
    digest = sha256(repr((values.shape, list(names), shape, split)).encode())
    digest.update(np.ascontiguousarray(values).astype("<f8", copy=False).tobytes())
    digest.update("\n".join(times).encode())
    return digest.hexdigest()
