"""Histories of which a few steps, or a few channels, differ from the clean ones: those that the adversary chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from robustbench_lab.threat_models.series_regions.boxed import Boxed

if TYPE_CHECKING:
    from robustbench_lab.sample_rng import SampleRng

_LEAP = 1e3
"""Steps of a thousandth of the budget, and larger ones, reach the end of the box."""


@dataclass(frozen=True, eq=False)
class Few(Boxed):
    """The inputs of a box of which at most `count` groups differ from the clean ones.

    A group is a step with all its channels, or a channel with all its steps.
    """

    count: int
    axis: Literal[1, 2]
    """Of `[N, L, C]`: along which groups lie. 1: steps; 2: channels."""

    def project(self, x: Tensor) -> Tensor:
        """The region's nearest points, in the series' units, `[N, L, C]`.

        Every group has a nearest point in the box. Kept are the groups by which the distance falls most.
        """
        nearest = self.box.project(x.clone())
        change = (nearest - self.clean) / self.unit
        # What the squared distance is less than that of the clean values.
        gain = change * (2 * (x - self.clean) / self.unit - change)
        return torch.where(self._best(self._by_group(gain)), nearest, self.clean)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """As many random groups as may change, uniform in the box, `[N, L, C]`."""
        groups = self.clean.shape[self.axis]
        order = rng.uniform((groups,), f"{draw}/groups")
        # Groups out of reach come last.
        order = order + self._by_group(self.box.movable).to(order.dtype).clamp_(max=1)
        return torch.where(self._best(order), self.box.random_start(rng, draw), self.clean)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """A step of size 1 in the groups by which a linear loss can rise most; overwrites `gradient`.

        Those that `x` has not changed yet leap to the end of the box, however small the step: else the groups that a
        search begins with, which lie further from the clean values, would be kept before them for ever.
        """
        room = torch.where(gradient > 0, self.box.highest - self.clean, self.clean - self.box.lowest)
        best = self._best(self._by_group(gradient.abs() * room))
        new = (x == self.clean).all(3 - self.axis, keepdim=True)
        return self.box.steepest(gradient, x).mul_(best * torch.where(new, _LEAP, 1.0))

    def contains(self, x: Tensor) -> Tensor:
        """Whether the box contains it, and at most `count` groups have changed, bool `[N]`."""
        changed = (self._by_group(x != self.clean) > 0).sum(1)
        return (changed <= self.count) & self.box.contains(x)

    def _by_group(self, values: Tensor) -> Tensor:
        """Values `[N, L, C]` to their sum over each group, `[N, groups]`."""
        return values.sum(3 - self.axis)

    def _best(self, worth: Tensor) -> Tensor:
        """The `count` groups worth most of `[N, groups]`, bool `[N, L, 1]` or `[N, 1, C]`."""
        chosen = worth.topk(min(self.count, worth.shape[1]), dim=1).indices
        return torch.zeros_like(worth, dtype=torch.bool).scatter_(1, chosen, value=True).unsqueeze(3 - self.axis)
