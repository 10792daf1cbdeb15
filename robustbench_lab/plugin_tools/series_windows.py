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
from torch import Tensor

from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.observed_series import (
    Channels,
    ObservedSeries,
    Spread,
    filled,
    spread,
    with_gaps,
)
from robustbench_lab.tasks.forecasting import Role

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
    """Windows of one part of some series that were observed at the same times, or of each member of a panel of such.

    Inputs and targets are those of task `forecasting`. Every future lies within the part; the history of its first
    windows reaches back into the part before, as in the usual benchmarks. What errors and budgets are in units of
    (`scale`, `unit`) comes from the training part of the same series alone.

    A missing value of an input is the last one before it, or at the beginning the first one after, and nobody can
    change it; in a future it stays missing, and counts in no error. A window whose future is missing whole is left out.
    """

    classes = None

    def __init__(
        self,
        panel: Sequence[ObservedSeries],
        channels: Channels,
        shape: WindowShape,
        *,
        split: Split = "test",
        bounds: Bounds = OPEN,
        flags: bool = False,
    ) -> None:
        """panel: one or more, of the same channels. bounds: of the forecast series.

        flags: whether inputs have a flag channel for each channel with gaps, 1 where the value was observed. Raises
        UsageError.
        """
        cuts = [cut_series(one, channels, shape, split) for one in panel]
        self.shape = shape
        self.channels = channels
        self.unit = np.stack([one.spread.unit for one in cuts])
        self.scale = np.stack([one.spread.scale for one in cuts])
        flagged = with_gaps(panel) if flags else ()
        self.channel_names = (*channels.observed, *channels.static, *(f"{channels.observed[n]} seen" for n in flagged))
        self._flagged = list(flagged)
        # Where inputs hold other channels, `input_low` and `input_high` say what each can be.
        self._alone = len(self.channel_names) == len(channels.series)
        self.bounds = bounds if self._alone else OPEN
        self._series_bounds = bounds
        self._varies = torch.from_numpy(np.stack([one.spread.varies for one in cuts]))
        self._values = torch.from_numpy(np.concatenate([filled(one.values) for one in panel])).float()
        self._seen = torch.from_numpy(np.concatenate([np.isfinite(one.values) for one in panel]))
        self._static = torch.tensor([list(one.static) for one in panel], dtype=torch.float32)
        self._training = cuts[0].training
        # Of each window: which series it is of, and the step of that series at which its future begins.
        self._block = torch.from_numpy(np.repeat(np.arange(len(panel)), [len(one.starts) for one in cuts]))
        self._start = torch.from_numpy(np.concatenate([one.starts for one in cuts]))
        lengths = torch.tensor([len(one.values) for one in panel])
        self._offset = (lengths.cumsum(0) - lengths)[self._block]
        self.sample_ids: tuple[str, ...] = tuple(
            "/".join(filter(None, (split, one.name, one.times[start])))
            for one, cut in zip(panel, cuts, strict=True)
            for start in cut.starts.tolist()
        )
        self.revision = _revision(panel, (channels, shape, split, flagged))

    def load(self, indices: Sequence[int]) -> Samples:
        """The windows, with targets `future` `[N, H, C]`, `scale` and `unit` `[N, C]`, `start` `[N]`.

        Of a panel also `block` `[N]`; where inputs hold other channels than the forecast series, also `roles`,
        `input_unit` and, where the series have bounds, `input_low` and `input_high`, `[N, channels]` each.
        """
        chosen = torch.tensor(list(indices), dtype=torch.long)
        start, block = self._start[chosen], self._block[chosen]
        first = (self._offset[chosen] + start)[:, None]
        count = len(self.channels.series)
        future = first + torch.arange(self.shape.horizon)
        missing = ~self._seen[future][..., :count]
        targets = {
            "future": self._values[future][..., :count].masked_fill(missing, torch.nan),
            "start": start,
            "scale": torch.from_numpy(self.scale).float()[block],
            "unit": torch.from_numpy(self.unit).float()[block, :count],
        }
        if len(self._static) > 1:
            targets["block"] = block
        if not self._alone:
            targets |= self._of_channels(block)
        inputs, attackable = self._inputs(first, block)
        return Samples(inputs, targets, None if attackable.all() else attackable)

    @property
    def training_part(self) -> NDArray[np.float32]:
        """The values that units of the first series come from, `[T, C]`, for those who train models."""
        part: NDArray[np.float32] = self._values[: self._training, : len(self.channels.series)].numpy()
        return part

    def _inputs(self, first: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs `[N, steps, channels]`, and where an adversary may change them.

        Steps are the history's, and with known covariates the future's: there all that is not known yet is 0.
        """
        history, horizon = self.shape.history, self.shape.horizon
        steps = first + torch.arange(-history, horizon if self.channels.known else 0)
        values, seen = self._values[steps], self._seen[steps]
        hidden = len(self.channels.series) + len(self.channels.past)
        values[:, history:, :hidden] = 0
        seen[:, history:, :hidden] = False
        static = self._static[block, None].expand(-1, steps.shape[1], -1)
        inputs = torch.cat([values, static, seen[..., self._flagged].float()], dim=2)
        attackable = torch.zeros(inputs.shape, dtype=torch.bool)
        attackable[..., : values.shape[2]] = seen & self._varies[block, None]
        return inputs, attackable

    def _of_channels(self, block: Tensor) -> dict[str, Tensor]:
        """What each channel is, and what it can be."""
        count, observed = len(self.channels.series), self.unit.shape[1]
        roles = [*self.channels.roles, *(Role.FIXED for _ in self._flagged)]
        unit = torch.ones(len(block), len(roles))
        unit[:, :observed] = torch.from_numpy(self.unit).float()[block]
        targets = {"roles": torch.tensor(roles).expand(len(block), -1), "input_unit": unit}
        if self._series_bounds != OPEN:
            for name, bound in (("input_low", self._series_bounds.low), ("input_high", self._series_bounds.high)):
                targets[name] = torch.full_like(unit, -math.inf if name == "input_low" else math.inf)
                targets[name][:, :count] = bound
        return targets


@dataclass(frozen=True)
class CutSeries:
    """Where the windows of one series lie."""

    starts: NDArray[np.int64]
    """The first step of each window's future."""
    training: int
    """Steps of the training part."""
    spread: Spread


def check_split(split: str, source: str) -> None:
    """Raise UsageError where there is no such part."""
    if split not in get_args(Split):
        raise UsageError(f"{source}: there is no split '{split}'.{did_you_mean(split, get_args(Split))}")


def cut_series(one: ObservedSeries, channels: Channels, shape: WindowShape, split: Split) -> CutSeries:
    """The windows of a series, and what its training part says. Raises UsageError where there are none."""
    check_split(split, one.source)
    ends = _ends(len(one.values), shape, one.source)
    first, last = _part(ends, split, shape)
    starts = np.arange(first, last - shape.horizon + 1, shape.stride or shape.horizon)
    if not len(starts):
        raise UsageError(
            f"{one.source}: the {split} part has {max(0, last - first)} steps to forecast, too few for a horizon of "
            f"{shape.horizon}: choose a shorter one or other parts"
        )
    measured = spread(one.values[: ends[0]], channels, shape.season, one.source)
    seen = np.isfinite(one.values[:, : len(channels.series)])
    starts = starts[[bool(seen[start : start + shape.horizon].any()) for start in starts.tolist()]]
    if not len(starts):
        raise UsageError(f"{one.source}: the {split} part has no value to forecast: choose other parts or columns")
    return CutSeries(starts, ends[0], measured)


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


def _revision(panel: Sequence[ObservedSeries], how: tuple[object, ...]) -> str:
    """SHA-256 over the values and times, and how they are cut."""
    digest = sha256(repr(how).encode())
    for one in panel:
        digest.update(repr((one.values.shape, one.name, [float(value) for value in one.static])).encode())
        digest.update(np.ascontiguousarray(one.values).astype("<f8", copy=False).tobytes())
        digest.update("\n".join(one.times).encode())
    return digest.hexdigest()
