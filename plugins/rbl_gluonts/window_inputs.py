"""What a network of GluonTS is given: made from the channels of windows as the library makes it from a series."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbl_gluonts.saved_predictor import SavedPredictor
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.local_files import listed
from robustbench_lab.plugin_tools.series_channels import SeriesChannels, latest


@dataclass(frozen=True)
class ChannelRoles:
    """The channels that are no forecast series, by their numbers from 0."""

    past: tuple[int, ...] = ()
    """Features of the past."""
    static: tuple[int, ...] = ()
    """Numbers that belong to a series."""
    categories: tuple[int, ...] = ()
    """Categories that a series belongs to, as whole numbers from 0."""
    observed: tuple[int, ...] = ()
    """For each forecast series: 1 where a value was observed."""


class WindowInputs:
    """Windows `[N, L, channels]`, with features `[N, L + H, channels]`, to the inputs of a network.

    Each series of a window is one row of the batch, but for networks that see all of a window together. What the
    library takes from the calendar (hours, weekdays) is a channel here; a series' age is counted from the window's
    first step.
    """

    def __init__(self, saved: SavedPredictor, channels: SeriesChannels, roles: ChannelRoles) -> None:
        """Raises UsageError where channels that the network needs are not named."""
        self.channels, self.roles, self.horizon = channels, roles, saved.horizon
        self.shapes = saved.shapes
        self.steps = saved.shapes["past_target"][1]
        self.together = len(saved.shapes["past_target"]) == 3
        self.cardinality, self.constants = saved.cardinality, saved.constant_fields
        self.fill = _fill(saved, channels.source) if roles.observed else None
        steps = saved.transformations
        self.calendar = [
            one["class"].rpartition(".")[2] for one in steps.get("AddTimeFeatures", {}).get("time_features", ())
        ]
        self.log_age = steps["AddAgeFeature"]["log_scale"] if "AddAgeFeature" in steps else None
        self.constant = steps["AddConstFeature"]["const"] if "AddConstFeature" in steps else None
        self._check()

    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        """By the names of the network's inputs, `[N * C, ...]` each; of a network that sees all series `[N, L, C]`."""
        history = self.channels.history(inputs, self.horizon)
        series = self.series(history)
        values = history[:, :, series]
        seen = history[:, :, list(self.roles.observed)].detach() if self.roles.observed else torch.ones_like(values)
        if seen.shape != values.shape:
            text = f"observed names {seen.shape[2]} channels for {values.shape[2]} series"
            raise UsageError(f"{self.channels.source}: {text}: name one for each")
        if self.fill is not None:
            values = torch.where(seen > 0.5, values, self.fill)
        made = {"past_target": self._latest(values), "past_observed_values": self._latest(seen)}
        if self.together:
            return made
        made = {name: one.transpose(1, 2).flatten(0, 1) for name, one in made.items()}
        given = {**self._features(inputs, history), **self._static(history)}
        made |= {name: one.repeat_interleave(len(series), 0) for name, one in given.items()}
        return {name: one for name, one in made.items() if name in self.shapes}

    def series(self, history: Tensor) -> list[int]:
        """The channels that are forecast."""
        roles = self.roles
        other = {*self.channels.known, *roles.past, *roles.static, *roles.categories, *roles.observed}
        if other and max(other) >= history.shape[2]:
            text = f"channel {max(other)} is asked for, the data have {history.shape[2]} channels, from 0"
            raise UsageError(f"{self.channels.source}: {text}")
        return [one for one in range(history.shape[2]) if one not in other][: self.channels.series]

    def _latest(self, history: Tensor) -> Tensor:
        return latest(history, self.steps, self.channels.source)

    def _check(self) -> None:
        """UsageError unless the channels named are as many as the network needs."""
        automatic = (self.log_age is not None) + (self.constant is not None)
        features = self._size("past_time_feat") or self._size("feat_dynamic_real")
        own = features - automatic - len(self.calendar)
        named = [*self.calendar, *([f"{own} of your own"] if own else [])]
        past, source = self._size("past_feat_dynamic_real"), self.channels.source
        static = 0 if "feat_static_real" in self.constants else self._size("feat_static_real")
        categories = 0 if "feat_static_cat" in self.constants else self._size("feat_static_cat")
        for what, given, count, names in (
            ("known", self.channels.known, features - automatic, f"features of each step ({listed(named, 9)})"),
            ("past", self.roles.past, past, "features of the past"),
            ("static", self.roles.static, static, "static numbers"),
            ("categories", self.roles.categories, categories, "static categories"),
        ):
            if len(given) != count:
                text = f"it needs {what}=[...], the channels of its {count} {names}" if count else f"leave {what} out"
                raise UsageError(f"{source}: {text}")
        if self._size("feat_dynamic_cat") or self._size("past_feat_dynamic_cat"):
            raise UsageError(f"{source}: it needs categories of each step, which are not offered: train it without")

    def _size(self, name: str) -> int:
        return self.shapes[name][-1] if name in self.shapes else 0

    def _features(self, inputs: Tensor, history: Tensor) -> dict[str, Tensor]:
        """Of each step, `[N, steps, F]`: the calendar's, then what the library adds, then those of the data."""
        past = self._latest(history[:, :, list(self.roles.past)])
        known = torch.cat([history[:, :, list(self.channels.known)], self._future(inputs)], 1)
        parts = [known[:, :, : len(self.calendar)]]
        if self.log_age is not None:
            age = torch.arange(known.shape[1]).to(known)
            age = (age + 2).log10() if self.log_age else age
            parts.append(age[None, :, None].expand(len(known), -1, 1))
        if self.constant is not None:
            parts.append(known.new_full((*known.shape[:2], 1), self.constant))
        every = torch.cat([*parts, known[:, :, len(self.calendar) :]], 2)
        ahead = every[:, -self.horizon :]
        before = self._latest(every[:, : -self.horizon])
        return {
            "past_time_feat": before,
            "future_time_feat": ahead,
            "feat_dynamic_real": torch.cat([before, ahead], 1),
            "past_feat_dynamic_real": past,
        }

    def _future(self, inputs: Tensor) -> Tensor:
        if self.channels.known:
            return self.channels.future(inputs, self.horizon)
        return inputs.new_zeros(len(inputs), self.horizon, 0)

    def _static(self, history: Tensor) -> dict[str, Tensor]:
        """Of each window, `[N, S]`."""
        last = history[:, -1]
        numbers, categories = last[:, list(self.roles.static)], last[:, list(self.roles.categories)].detach()
        for place, count in enumerate(self.cardinality[: categories.shape[1]]):
            column = categories[:, place]
            if not bool(((column == column.round()) & (column >= 0) & (column < count)).all()):
                text = f"channel {self.roles.categories[place]} is to hold categories, 0 to {count - 1}"
                raise UsageError(f"{self.channels.source}: {text}: it has other values")
        made = {"feat_static_real": numbers, "feat_static_cat": categories.long()}
        for name, one in made.items():
            if name in self.constants:
                made[name] = torch.as_tensor(self.constants[name]).to(one).expand(len(last), -1)
        return made


def _fill(saved: SavedPredictor, source: str) -> float | None:
    """What stands where nothing was observed; None: the last value before, as in the data."""
    method: Any = saved.transformations.get("AddObservedValuesIndicator", {}).get("imputation_method")
    if method is None:
        return 0.0
    kind = method["class"].rpartition(".")[2]
    if kind == "DummyValueImputation":
        return float(method["kwargs"]["dummy_value"])
    if kind == "LastValueImputation":
        return None
    raise UsageError(f"{source}: its missing values are filled by {kind}, which is not offered: leave observed out")
