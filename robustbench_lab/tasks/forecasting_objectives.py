"""What an adversary of a forecaster wants: a larger error, a higher, lower, surer or less sure forecast, or its own.

More damage is worse, so no window is ever done: attacks run their steps out, and the most damaging input is kept.
Whatever is wanted of the point forecast, a window counts as broken when its error has become so many times the clean
one, judged by what really came; of intervals, when their width has become so many times as wide or as narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lab.errors import SkipCell, UsageError, did_you_mean
from robustbench_lab.passes.model_queries import Assessment
from robustbench_lab.tasks.forecast_errors import Targets, observed, shares, weighted_sum
from robustbench_lab.tasks.forecast_output import LEVELS, Forecast, Paths, centre, point, width

Passes = Annotated[int, Field(ge=1)]
Goal = dict[str, Tensor]
"""`future` and `clean` `[B, H, C]`, what came and the clean point forecast; `label` `[B, H, C]`, which the adversary
wants to be far from, or near to; `by_scale` and `by_unit` `[B, H, C]`, what each value counts in a mean, in units of
MASE and of training standard deviations; `clean_error` `[B]`, the clean MASE; `clean_width` `[B]`; of the targets
`start`, `block` and `roles`, which say where a window lies."""


@dataclass(frozen=True)
class ForecastObjective:
    """What the objectives share."""

    times: Annotated[float, Field(gt=1)] = 2.0
    """A window counts as broken when its error is above so many times its clean error. There is no convention: doubling
    is this project's choice, below the rise of up to 2.4 times that a sparse online attack is reported to reach."""
    series: Sequence[Annotated[int, Field(ge=0)]] | None = None
    """The numbers, from 0, of the forecast series that the adversary aims at; None: all of them."""
    gradient: Literal["path", "score"] = "path"
    """Of models that draw paths: through the paths (reparameterisation), or the score-function estimate, which needs no
    gradient of the draws (Dang-Nhu et al. 2020, https://arxiv.org/abs/2003.03778)."""
    eot: Passes | None = None
    """Forward passes that every query takes the mean of; None: 1, and 20 on a randomized model."""

    @property
    def stop_on_success(self) -> bool:
        """Never: an error three times as large is worse than one twice as large."""
        return False

    def prepare(self, clean_prediction: Forecast, targets: Targets) -> Goal:
        """What came, the clean forecast, and what each value counts."""
        future, seen = observed(targets)
        counted = seen * self._aimed_at(future)
        clean = point(clean_prediction)
        goal: Goal = {
            **{name: targets[name] for name in ("start", "block", "roles") if name in targets},
            "future": future,
            "clean": clean,
            "by_scale": shares(counted, targets["scale"]),
            "by_unit": shares(counted, targets["unit"]),
        }
        goal["clean_error"] = _error(clean, goal)
        goal["clean_width"] = weighted_sum(width(clean_prediction), goal["by_unit"])
        return goal

    def succeeded(self, prediction: Forecast, goal: Goal) -> Tensor:
        """Whether the error is more than `times` the clean one, bool `[B]`."""
        return _error(point(prediction), goal) > self.times * goal["clean_error"]

    def _aimed_at(self, future: Tensor) -> Tensor:
        """1 for the series aimed at, otherwise 0, `[C]`. Raises SkipCell where there is no such series."""
        every = future.shape[2]
        if self.series is None:
            return future.new_ones(every)
        if not self.series or (beyond := [one for one in self.series if one >= every]):
            named = list(self.series) if not self.series else beyond
            raise SkipCell(f"objective series={named}: {every} series are forecast, numbered from 0")
        aimed = future.new_zeros(every)
        aimed[list(self.series)] = 1
        return aimed

    def _centre(self, prediction: Forecast) -> Tensor:
        """The forecast that gradients go through, `[B, H, C]`. Raises SkipCell where there is no score."""
        if self.gradient == "path":
            return centre(prediction)
        if not isinstance(prediction, Paths):
            raise SkipCell("gradient='score' is for models that draw paths: take gradient='path'")
        return prediction.mean_by_score()


@dataclass(frozen=True)
class Error(ForecastObjective):
    """The forecast as wrong as can be."""

    labels: Literal["oracle", "self"] = "oracle"
    """Wrong by what: the true future, as if the adversary knew it, or the model's own clean forecast."""

    def prepare(self, clean_prediction: Forecast, targets: Targets) -> Goal:
        """The shared goal, and the forecast to get away from."""
        goal = super().prepare(clean_prediction, targets)
        return {**goal, "label": goal["future" if self.labels == "oracle" else "clean"]}

    def loss(self, name: str | None, prediction: Forecast, goal: Goal) -> Tensor:
        """`mae` (the default), `mse` or, of distributions, `quantile` against the label, in series' units, `[B]`."""
        if _choose(name, ("mae", "mse", "quantile")) == "quantile":
            return _quantile_loss(prediction, goal)
        return _distance(name, self._centre(prediction), goal)

    def damage(self, prediction: Forecast, goal: Goal) -> Tensor:
        """MASE against the label, `[B]`."""
        return _error(point(prediction), goal, "label")

    def assess(self, name: str | None, prediction: Forecast, goal: Goal) -> Assessment | None:
        """All of it for point forecasts: the difference from the label is what the loss and the error both come from.

        None for other losses and forecasts, and for classes that derive from this one and may mean something else.
        """
        plain = type(self) is Error and self.gradient == "path" and name in (None, "mae")
        if not plain or not isinstance(prediction, Tensor) or prediction.shape != goal["label"].shape:
            return None
        _arrange(goal, prediction)
        difference = prediction - goal["label"]
        slope = goal["by_unit"].copysign(difference)
        loss = _sum(difference, slope)
        damage = weighted_sum(difference.abs_(), goal["by_scale"])
        error = damage if self.labels == "oracle" else _error(prediction, goal)
        return Assessment(loss, slope, error > self.times * goal["clean_error"], damage)


@dataclass(frozen=True)
class Up(ForecastObjective):
    """The forecast too high."""

    def loss(self, name: str | None, prediction: Forecast, goal: Goal) -> Tensor:
        """`shift`: the mean of the forecast above the clean one, each series in its own unit, `[B]`."""
        _choose(name, ("shift",))
        return _shift(self._centre(prediction), goal)

    def damage(self, prediction: Forecast, goal: Goal) -> Tensor:
        """The same, `[B]`."""
        return _shift(point(prediction), goal)


@dataclass(frozen=True)
class Down(ForecastObjective):
    """The forecast too low."""

    def loss(self, name: str | None, prediction: Forecast, goal: Goal) -> Tensor:
        """`shift`: the mean of the forecast below the clean one, each series in its own unit, `[B]`."""
        _choose(name, ("shift",))
        return -_shift(self._centre(prediction), goal)

    def damage(self, prediction: Forecast, goal: Goal) -> Tensor:
        """The same, `[B]`."""
        return -_shift(point(prediction), goal)


@dataclass(frozen=True)
class Target(ForecastObjective):
    """The forecast near to one of the adversary's choice: a multiple of the clean one, or a level.

    So Dang-Nhu et al. 2020 (https://arxiv.org/abs/2003.03778: 1.5 and 0.5 times) and Liu et al. 2023
    (https://arxiv.org/abs/2207.09572).
    """

    factor: float | None = None
    """Times the clean forecast; 1.5 where neither this nor a level is given."""
    level: float | None = None
    """The same value at all steps, in the data's own units."""

    def __post_init__(self) -> None:
        if self.factor is not None and self.level is not None:
            raise UsageError("objective target: give a factor or a level, not both")

    def prepare(self, clean_prediction: Forecast, targets: Targets) -> Goal:
        """The shared goal, and the forecast to come near to."""
        goal = super().prepare(clean_prediction, targets)
        if self.level is not None:
            return {**goal, "label": torch.full_like(goal["clean"], self.level)}
        return {**goal, "label": goal["clean"] * (1.5 if self.factor is None else self.factor)}

    def loss(self, name: str | None, prediction: Forecast, goal: Goal) -> Tensor:
        """`mae` (the default) or `mse` against the wanted forecast, downwards, `[B]`."""
        return -_distance(name, self._centre(prediction), goal)

    def damage(self, prediction: Forecast, goal: Goal) -> Tensor:
        """MASE against the wanted forecast, with a minus, `[B]`."""
        return -_error(point(prediction), goal, "label")


@dataclass(frozen=True)
class Widen(ForecastObjective):
    """Intervals so wide that they say nothing. For models that forecast distributions."""

    def prepare(self, clean_prediction: Forecast, targets: Targets) -> Goal:
        """The shared goal. Raises SkipCell for point forecasts."""
        _check_interval(clean_prediction)
        return super().prepare(clean_prediction, targets)

    def loss(self, name: str | None, prediction: Forecast, goal: Goal) -> Tensor:
        """`width`: the mean width of the central 80%, each series in its own unit, `[B]`."""
        _choose(name, ("width",))
        return self._width(prediction, goal)

    def damage(self, prediction: Forecast, goal: Goal) -> Tensor:
        """The same, `[B]`."""
        return self._width(prediction, goal)

    def succeeded(self, prediction: Forecast, goal: Goal) -> Tensor:
        """Whether the intervals are more than `times` as wide as the clean ones, bool `[B]`."""
        return self._width(prediction, goal) > self.times * goal["clean_width"]

    def _width(self, prediction: Forecast, goal: Goal) -> Tensor:
        if self.gradient == "score":
            raise SkipCell("the width of intervals has no score-function gradient here: take gradient='path'")
        return weighted_sum(width(prediction), goal["by_unit"])


@dataclass(frozen=True)
class Narrow(Widen):
    """Intervals so narrow that the model seems sure. For models that forecast distributions."""

    def loss(self, name: str | None, prediction: Forecast, goal: Goal) -> Tensor:
        """`width`: the mean width of the central 80%, downwards, `[B]`."""
        return -super().loss(name, prediction, goal)

    def damage(self, prediction: Forecast, goal: Goal) -> Tensor:
        """The same, `[B]`."""
        return -super().damage(prediction, goal)

    def succeeded(self, prediction: Forecast, goal: Goal) -> Tensor:
        """Whether the intervals are more than `times` as narrow as the clean ones, bool `[B]`."""
        return self._width(prediction, goal) * self.times < goal["clean_width"]


def _arrange(goal: Goal, forecast: Tensor) -> None:
    """Bring what forecasts are compared with into their order in memory, once: mixed orders take twice as long."""
    order = _order(forecast)
    if order == _order(goal["label"]) or forecast.numel() != 1 + sum((n - 1) * step for n, step in order):
        return
    for name in ("label", "future", "by_unit", "by_scale"):
        goal[name] = torch.empty_like(forecast, dtype=goal[name].dtype).copy_(goal[name])


def _order(x: Tensor) -> list[tuple[int, int]]:
    """Size and stride of each dimension in which it has more than one value."""
    return [(size, stride) for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1]


def _error(forecast: Tensor, goal: Goal, label: str = "future") -> Tensor:
    """MASE against what came, or against a label, `[B]`."""
    return weighted_sum((forecast - goal[label]).abs(), goal["by_scale"])


def _distance(name: str | None, forecast: Tensor, goal: Goal) -> Tensor:
    """The forecast's distance from the label, `[B]`."""
    difference = forecast - goal["label"]
    if _choose(name, ("mae", "mse")) == "mse":
        return _sum(difference.square(), goal["by_unit"].square()) * _counted(goal)
    # Its absolute value, which unlike that of abs has a slope at 0: where the label is the clean forecast, a search
    # begins there.
    return _sum(difference, goal["by_unit"].copysign(difference.detach()))


def _quantile_loss(prediction: Forecast, goal: Goal) -> Tensor:
    """Twice the mean quantile loss against the label, `[B]`."""
    if isinstance(prediction, Tensor):
        return _distance("mae", prediction, goal)
    levels = torch.tensor(LEVELS, device=prediction.values.device)
    missed = goal["label"][..., None] - prediction.at(LEVELS)
    return _sum(2 * torch.maximum(levels * missed, (levels - 1) * missed).mean(3), goal["by_unit"])


def _shift(forecast: Tensor, goal: Goal) -> Tensor:
    """The mean of the forecast above the clean one, in the series' units, `[B]`."""
    return _sum(forecast - goal["clean"], goal["by_unit"])


def _sum(values: Tensor, shares: Tensor) -> Tensor:
    """`[B, H, C]` to `[B]`."""
    return (values * shares).sum((1, 2))


def _counted(goal: Goal) -> Tensor:
    """How many values count in each window, `[B]`."""
    return (goal["by_unit"] > 0).flatten(1).sum(1)


def _check_interval(prediction: Forecast) -> None:
    if isinstance(prediction, Tensor):
        raise SkipCell("the model forecasts points, which have no interval: widen and narrow are for distributions")


def _choose(name: str | None, known: tuple[str, ...]) -> str:
    """The loss of that name; the first where none is given. Raises UsageError."""
    if name is None:
        return known[0]
    if name not in known:
        raise UsageError(f"there is no loss '{name}' for this objective on forecasters.{did_you_mean(name, known)}")
    return name
