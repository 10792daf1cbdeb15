"""Which channels of a window a forecaster of a library forecasts, and which it is told the future of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_lab.contracts import Samples
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.forecast_output import Forecast, Quantiles

Count = Annotated[int, Field(ge=1)]
Known = Sequence[Annotated[int, Field(ge=0)]]
"""Numbers of channels, from 0."""


@dataclass(frozen=True)
class SeriesChannels:
    """Inputs are `[N, L, channels]`, or `[N, L + H, channels]` where covariates are known beforehand."""

    source: str
    """For messages."""
    series: int | None = None
    """How many of the first channels are forecast; None: all but those known beforehand, or, of a `Univariate`, as many
    as the data have a future of."""
    known: tuple[int, ...] = ()
    """The channels whose last H steps are the future."""

    def history(self, inputs: Tensor, horizon: int) -> Tensor:
        """The steps of the past, `[N, L, channels]`. Raises UsageError where the channels asked for are not there."""
        channels = inputs.shape[2]
        if self.known and max(self.known) >= channels:
            raise UsageError(f"{self.source}: known={list(self.known)}: the data have {channels} channels, from 0")
        if self.series is not None and self.series > channels:
            raise UsageError(f"{self.source}: series={self.series}: the data have {channels} channels")
        return inputs[:, :-horizon] if self.known else inputs

    def forecast_series(self, history: Tensor) -> Tensor:
        """The series that are forecast, `[N, L, C]`."""
        if self.series is not None:
            return history[:, :, : self.series]
        return history[:, :, [one for one in range(history.shape[2]) if one not in self.known]]

    def future(self, inputs: Tensor, horizon: int) -> Tensor:
        """What is known of the steps to come, `[N, H, K]`."""
        return inputs[:, -horizon:, list(self.known)]


def chosen_horizon(horizon: int | None, own: int, source: str) -> int:
    """The steps to forecast: `horizon`, or all `own` that a network forecasts. UsageError where it is more."""
    if horizon is not None and horizon > own:
        raise UsageError(f"{source}: horizon={horizon}: it forecasts {own} steps")
    return horizon or own


def latest(history: Tensor, steps: int, source: str) -> Tensor:
    """The last `steps` of histories `[N, L, ...]`. UsageError where they are shorter."""
    if history.shape[1] < steps:
        found = f"takes histories of {steps} steps, the data give {history.shape[1]}"
        raise UsageError(f"{source}: {found}: give the dataset history={steps}")
    return history[:, -steps:]


class AnyHorizon(nn.Module):
    """A forecaster of as many steps as the data ask for, unless it is told how many."""

    def __init__(self, source: str, horizon: int | None, *, usual: int | None = None, most: int | None = None) -> None:
        """source: for messages. usual: steps where neither a user nor a dataset names any. most: that it can forecast.

        Raises UsageError where `horizon` is more.
        """
        super().__init__()
        self._source = source
        self._most = most
        self._usual = usual
        self._asked = horizon if most is None or horizon is None else chosen_horizon(horizon, most, source)

    def follow(self, samples: Samples) -> None:
        """Take the horizon of these, or as much of it as there is; see `contracts.FollowsData`."""
        if isinstance(samples.targets, dict) and "future" in samples.targets:
            steps = samples.targets["future"].shape[1]
            self._usual = steps if self._most is None else min(steps, self._most)

    @property
    def horizon(self) -> int:
        """Steps of the forecast. Raises UsageError where nobody has said how many."""
        steps = self._asked or self._usual
        if steps is None:
            raise UsageError(f"{self._source}: no dataset says how many steps to forecast: give it a horizon")
        return steps


class Univariate(AnyHorizon, ABC):
    """A forecaster that sees one series at a time: `one_series` maps histories `[B, L]` to `[B, H]` or `[B, H, Q]`."""

    def __init__(
        self,
        channels: SeriesChannels,
        horizon: int | None,
        levels: tuple[float, ...] | None = None,
        *,
        usual: int | None = None,
        most: int | None = None,
    ) -> None:
        """levels: of the Q quantiles; None: points. The others: see `AnyHorizon`."""
        super().__init__(channels.source, horizon, usual=usual, most=most)
        self.channels = channels
        self.levels = levels
        self._counts_series = channels.series is None

    def follow(self, samples: Samples) -> None:
        """Forecast the series that these have a future of, unless told how many: covariates of the past have none."""
        super().follow(samples)
        if self._counts_series and isinstance(samples.targets, dict) and "future" in samples.targets:
            count = samples.targets["future"].shape[2]
            if all(channel >= count for channel in self.channels.known):
                self.channels = replace(self.channels, series=count)

    @abstractmethod
    def one_series(self, history: Tensor) -> Tensor:
        """Histories `[B, L]` of single series to `[B, H]` or `[B, H, Q]`."""

    def forward(self, inputs: Tensor) -> Forecast:
        """Windows `[N, L, channels]` to points `[N, H, C]`, or `Quantiles` of the same."""
        history = self.channels.forecast_series(self.channels.history(inputs, self.horizon))
        made = self.one_series(history.transpose(1, 2).flatten(0, 1))
        by_window = torch.unflatten(made, 0, (len(inputs), history.shape[2])).movedim(1, 2)
        return by_window if self.levels is None else Quantiles(by_window, self.levels)


def as_black_box(made: Tensor, like: Tensor) -> Tensor:
    """Numbers that another library made, on the device and in the precision of the inputs, without gradient."""
    return torch.as_tensor(made).to(like.device, like.dtype)
