"""Histories of which every value stays within a distance of its own: the region that all others here are part of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from robustbench_lab.sample_rng import SampleRng

_RELATIVE_TOLERANCE = 1e-5
_ROUNDING = 2.0**-22
"""Four units of float32 rounding."""


@dataclass(frozen=True, eq=False)
class SeriesBox:
    """The inputs between a lowest and a highest value for each value; some stay whole numbers."""

    clean: Tensor
    """`[N, L, C]` in the data's own units."""
    unit: Tensor
    """Above 0: what 1 of the budget is in the data's own units, `[N, 1, C]`, or `[N, L, C]` where steps differ."""
    lowest: Tensor
    """`[N, L, C]`, at most the clean value; both are the clean value where nothing may change."""
    highest: Tensor
    whole: Tensor | None = None
    """Bool `[N, L, C]`: values that stay whole numbers. None: no value has to."""

    @classmethod
    def around(
        cls, clean: Tensor, unit: Tensor, eps: float, low: Tensor, high: Tensor, *, integer: bool = False
    ) -> SeriesBox:
        """Every value within `eps` units of its clean one, and between `low` and `high` (`[N, 1, C]`).

        integer: what is a whole number stays one; the budget is rounded inwards.
        """
        lowest, highest = (clean - eps * unit).maximum(low), (clean + eps * unit).minimum(high)
        if not integer:
            return cls(clean, unit, lowest, highest)
        whole = clean == clean.round()
        lowest, highest = torch.where(whole, lowest.ceil(), lowest), torch.where(whole, highest.floor(), highest)
        return cls(clean, unit, lowest, highest, whole)

    @cached_property
    def movable(self) -> Tensor:
        """Where anything may change, bool `[N, L, C]`."""
        return self.lowest < self.highest

    @property
    def reachable(self) -> Tensor:
        """The samples with a value that may change, bool `[N]`."""
        return self.movable.flatten(1).any(1)

    @cached_property
    def _step(self) -> Tensor:
        """A step of size 1: the unit, 0 where nothing may change; of a shape that broadcasts to `[N, L, C]`.

        What is the same at all steps is spread over them: a broadcast along the steps, with a few channels at each,
        takes a CPU four times as long.
        """
        step = self.unit if bool(self.movable.all()) else self.unit * self.movable
        if step.shape[1] == self.clean.shape[1] or step.shape[2] == 1:
            return step
        alike = step[:1] if bool((step == step[:1]).all()) else step
        return alike.expand(-1, self.clean.shape[1], -1).contiguous()

    def project(self, x: Tensor) -> Tensor:
        """The region's nearest points, `[N, L, C]`; overwrites `x`."""
        x = x.clamp_(self.lowest, self.highest)
        return x if self.whole is None else torch.where(self.whole, x.round(), x)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """Uniform between the lowest and the highest values, `[N, L, C]`."""
        share = rng.uniform(tuple(self.clean.shape[1:]), draw)
        return self.project(torch.lerp(self.lowest, self.highest, share))

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002 (the protocol's)
        """The sign of the gradient, in the series' units; overwrites `gradient`."""
        return gradient.sign_().mul_(self._step)

    def climb(self, gradient: Tensor, x: Tensor, size: float) -> Tensor:
        """A step of `size` along the steepest direction, in the region; overwrites both."""
        return self.project(x.addcmul_(gradient.sign_(), self._step, value=size))

    def distance(self, x: Tensor) -> Tensor:
        """The largest change of a value, in the series' units, `[N]`."""
        return (x - self.clean).abs_().div_(self.unit).flatten(1).amax(1)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each `x` is allowed, bool `[N]`.

        Values may be outside by 1e-5 of the way from the clean one to the end, and by 2**-22 of their size: what
        float32 arithmetic does to a point that was meant to be inside. What may not change must be equal, and what
        stays whole must be whole.
        """
        slack = self.clean.abs() * _ROUNDING
        low = self.lowest - (self.clean - self.lowest) * _RELATIVE_TOLERANCE - slack
        high = self.highest + (self.highest - self.clean) * _RELATIVE_TOLERANCE + slack
        within = torch.where(self.movable, (x >= low) & (x <= high), x == self.clean)
        if self.whole is not None:
            within &= ~self.whole | (x == x.round())
        return within.flatten(1).all(1)

    def select(self, index: Tensor) -> SeriesBox:
        """The region around some of the samples."""
        clean, unit = self.clean.index_select(0, index), self.unit.index_select(0, index)
        lowest, highest = self.lowest.index_select(0, index), self.highest.index_select(0, index)
        whole = None if self.whole is None else self.whole.index_select(0, index)
        return SeriesBox(clean, unit, lowest, highest, whole)

    def cut(self, start: int, stop: int) -> SeriesBox:
        """The region around samples that follow each other, without a copy."""
        whole = None if self.whole is None else self.whole[start:stop]
        return SeriesBox(
            self.clean[start:stop], self.unit[start:stop], self.lowest[start:stop], self.highest[start:stop], whole
        )

    def masked(self, attackable: Tensor) -> SeriesBox:
        """The region of which only some values (bool, of a shape that broadcasts) are within reach."""
        lowest, highest = (torch.where(attackable, one, self.clean) for one in (self.lowest, self.highest))
        return replace(self, lowest=lowest, highest=highest)

    @property
    def relaxed(self) -> SeriesBox | None:
        """The same, where nothing has to be a whole number; None where nothing has to be."""
        return None if self.whole is None else replace(self, whole=None)
