"""What an adversary wants of a forecaster: a larger error, a higher or lower forecast, or one of its own choice.

More damage is worse, so no window is ever done: attacks run their steps out, and the most damaging input is kept.
Whatever the adversary wants, a window counts as broken when the forecast's error has become so many times the clean
one, judged by what really came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.tasks.forecast_errors import Targets, by_series, mase

Passes = Annotated[int, Field(ge=1)]
Goal = dict[str, Tensor]
"""The targets; `clean` `[B, H, C]`, the clean forecast, and `clean_error` `[B]`, its MASE; `label` `[B, H, C]`, which
the adversary wants to be far from, or near to."""
LOSSES = ("mae", "mse")


@dataclass(frozen=True)
class ForecastObjective:
    """What the objectives share."""

    times: Annotated[float, Field(gt=1)] = 2.0
    """A window counts as broken when its error is above so many times its clean error. There is no convention: doubling
    is this project's choice, below the rise of up to 2.4 times that a sparse online attack is reported to reach."""
    eot: Passes | None = None
    """Forward passes that every query takes the mean of; None: 1, and 20 on a randomized model."""

    @property
    def stop_on_success(self) -> bool:
        """Never: an error three times as large is worse than one twice as large."""
        return False

    def prepare(self, clean_prediction: Tensor, targets: Targets) -> Goal:
        """The targets with the clean forecast and its error."""
        known = {name: targets[name] for name in ("future", "scale", "unit")}
        return {**known, "clean": clean_prediction, "clean_error": mase(clean_prediction, targets)}

    def succeeded(self, prediction: Tensor, goal: Goal) -> Tensor:
        """Whether the error is more than `times` the clean one, bool `[B]`."""
        return mase(prediction, goal) > self.times * goal["clean_error"]


@dataclass(frozen=True)
class Error(ForecastObjective):
    """The forecast as wrong as can be."""

    labels: Literal["oracle", "self"] = "oracle"
    """Wrong by what: the true future, as if the adversary knew it, or the model's own clean forecast."""

    def prepare(self, clean_prediction: Tensor, targets: Targets) -> Goal:
        """The shared goal, and the forecast to get away from."""
        goal = super().prepare(clean_prediction, targets)
        return {**goal, "label": goal["future" if self.labels == "oracle" else "clean"]}

    def loss(self, name: str | None, prediction: Tensor, goal: Goal) -> Tensor:
        """`mae` (the default) or `mse` against the label, each series in its own unit, `[B]`."""
        return _distance(name, prediction, goal)

    def damage(self, prediction: Tensor, goal: Goal) -> Tensor:
        """MASE against the label, `[B]`."""
        return mase(prediction, {**goal, "future": goal["label"]})


@dataclass(frozen=True)
class Up(ForecastObjective):
    """The forecast too high."""

    def loss(self, name: str | None, prediction: Tensor, goal: Goal) -> Tensor:
        """`shift`: the mean of the forecast above the clean one, each series in its own unit, `[B]`."""
        _choose(name, ("shift",))
        return _shift(prediction, goal)

    def damage(self, prediction: Tensor, goal: Goal) -> Tensor:
        """The same, `[B]`."""
        return _shift(prediction, goal)


@dataclass(frozen=True)
class Down(ForecastObjective):
    """The forecast too low."""

    def loss(self, name: str | None, prediction: Tensor, goal: Goal) -> Tensor:
        """`shift`: the mean of the forecast below the clean one, each series in its own unit, `[B]`."""
        _choose(name, ("shift",))
        return -_shift(prediction, goal)

    def damage(self, prediction: Tensor, goal: Goal) -> Tensor:
        """The same, `[B]`."""
        return -_shift(prediction, goal)


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

    def prepare(self, clean_prediction: Tensor, targets: Targets) -> Goal:
        """The shared goal, and the forecast to come near to."""
        if self.level is not None:
            wanted = torch.full_like(clean_prediction, self.level)
        else:
            wanted = clean_prediction * (1.5 if self.factor is None else self.factor)
        return {**super().prepare(clean_prediction, targets), "label": wanted}

    def loss(self, name: str | None, prediction: Tensor, goal: Goal) -> Tensor:
        """`mae` (the default) or `mse` against the wanted forecast, downwards, `[B]`."""
        return -_distance(name, prediction, goal)

    def damage(self, prediction: Tensor, goal: Goal) -> Tensor:
        """MASE against the wanted forecast, with a minus, `[B]`."""
        return -mase(prediction, {**goal, "future": goal["label"]})


def _distance(name: str | None, prediction: Tensor, goal: Goal) -> Tensor:
    """The forecast's distance from the label, `[B]`."""
    difference = (prediction - goal["label"]) / by_series(goal["unit"])
    if _choose(name, LOSSES) == "mse":
        return difference.square().flatten(1).mean(1)
    # Unlike abs it has a slope at 0: where the label is the clean forecast, a search begins there.
    return torch.where(difference >= 0, difference, -difference).flatten(1).mean(1)


def _shift(prediction: Tensor, goal: Goal) -> Tensor:
    """The mean of the forecast above the clean one, in the series' units, `[B]`."""
    return ((prediction - goal["clean"]) / by_series(goal["unit"])).flatten(1).mean(1)


def _choose(name: str | None, known: tuple[str, ...]) -> str:
    """The loss of that name; the first where none is given. Raises UsageError."""
    if name is None:
        return known[0]
    if name not in known:
        raise UsageError(f"there is no loss '{name}' for this objective on forecasters.{did_you_mean(name, known)}")
    return name
