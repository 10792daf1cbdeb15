"""Histories whose changes are smooth: those of neighbouring steps differ by little."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import ceil
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from robustbench_lab.threat_models.series_regions.along_gradient import along_gradient
from robustbench_lab.threat_models.series_regions.boxed import Boxed

if TYPE_CHECKING:
    from robustbench_lab.sample_rng import SampleRng

_ITERATIONS = 200
_CHECKED_EVERY = 10
_RELAXATION = 1.7
_TOLERANCE = 0.01
"""In rises: a point is near enough where no value changes by more between two iterations, or breaks a rule by more.

The nearest point is then mostly within a tenth of a rise in each value, 0.15 at most as far as was seen, and within 1%
of one on average. A hundred times as exact, PGD ends at errors within 0.02% of these, in two to four times the time."""


@dataclass(frozen=True, eq=False)
class Smooth(Boxed):
    """The inputs of a box whose changes at neighbouring steps differ by at most `rise`, channel by channel."""

    rise: Tensor
    """`[N, 1, C]`, above 0, in the data's own units."""
    width: float
    """How far a value may be from the clean one at most, in rises."""

    def project(self, x: Tensor) -> Tensor:
        """Points of the region, as near as `_TOLERANCE` says, `[N, L, C]`."""
        inside = self.contains(x)
        if bool(inside.all()):
            return x
        low, high = self._ends
        nearest = self._back(_made_smooth(_nearest(self._in_rises(x), low, high, self.width), low, high))
        return torch.where(inside[:, None, None], x, nearest)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """Up and down at random, as far and as fast as may be, `[N, L, C]`."""
        low, high = self._ends
        steps, channels = self.clean.shape[1:]
        run = min(steps, ceil(2 * self.width))
        turns = rng.integers(2, (channels, -(-steps // run)), draw)
        up = turns.repeat_interleave(run, dim=2)[:, :, :steps] > 0
        return self._back(_made_smooth(torch.where(up, high, low), low, high))

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002 (the protocol's)
        """Along the gradient: see along_gradient.py; overwrites `gradient`."""
        return along_gradient(gradient, self.box)

    def contains(self, x: Tensor) -> Tensor:
        """Whether the box contains it and its changes are smooth, up to float32 rounding, bool `[N]`."""
        difference = (x - self.clean).diff(dim=1).abs()
        size = torch.maximum(self.clean.abs(), x.abs())
        slack = (size[:, 1:] + size[:, :-1]) * 2.0**-22
        smooth = difference <= self.rise * (1 + 1e-5) + slack
        return smooth.flatten(1).all(1) & self.box.contains(x)

    def select(self, index: Tensor) -> Self:
        """The region around some of the samples."""
        return replace(self, box=self.box.select(index), rise=self.rise.index_select(0, index))

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """The box's ends, as far as they can be reached from neighbouring steps, in rises, `[N, C, L]` each."""
        return _smallest_above(self._in_rises(self.box.lowest)), _largest_below(self._in_rises(self.box.highest))

    def _in_rises(self, x: Tensor) -> Tensor:
        """`x` `[N, L, C]` to its change in multiples of what neighbours may differ by, float64 `[N, C, L]`."""
        return ((x - self.clean).double() / self.rise).transpose(1, 2)

    def _back(self, change: Tensor) -> Tensor:
        moved = (self.clean + change.transpose(1, 2) * self.rise).to(self.clean.dtype)
        return moved.clamp_(self.box.lowest, self.box.highest)


def _nearest(x: Tensor, low: Tensor, high: Tensor, width: float) -> Tensor:
    """About the nearest `[..., L]` between `low` and `high` whose neighbours differ by at most 1.

    By the alternating direction method of multipliers (Boyd et al. 2011, section 5.1): minimise |y - x|**2 / 2 where
    D y = z, for the differences, and y = w, for the box; one linear system, which is the same for all. Over-relaxed
    (section 3.4.3), with a penalty that suits how many steps a way from end to end takes, `width`.
    """
    penalty = max(1.0, width / 2)
    inverse = _system(x.shape[-1], penalty, x.device)
    w = x.clamp(low, high)
    z = w.diff(dim=-1).clamp_(-1, 1)
    u, v = torch.zeros_like(z), torch.zeros_like(w)
    found, open_yet = w, torch.ones_like(w[..., :1], dtype=torch.bool)
    for iteration in range(1, _ITERATIONS + 1):
        y = (x + penalty * (_transposed_difference(z - u) + w - v)) @ inverse
        rise, before = y.diff(dim=-1), w
        relaxed_rise, relaxed = z.lerp(rise, _RELAXATION), w.lerp(y, _RELAXATION)
        z, w = (relaxed_rise + u).clamp_(-1, 1), (relaxed + v).clamp_(low, high)
        u += relaxed_rise - z
        v += relaxed - w
        if iteration % _CHECKED_EVERY == 0:
            off = (rise - z).abs().amax(-1).maximum((y - w).abs().amax(-1)).maximum((w - before).abs().amax(-1))
            # Each sequence is judged by itself, so that it is the same whatever others there are.
            found = torch.where(open_yet, w, found)
            open_yet = open_yet & (off > _TOLERANCE)[..., None]
            if not bool(open_yet.any()):
                break
    return found


def _made_smooth(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`x` `[..., L]` with neighbours that differ by at most 1 and within the box; where they do already, `x` itself.

    The mean of the largest such sequence below `x` and the smallest one above it. The ends must be smooth themselves.
    """
    x = torch.minimum(torch.maximum(x, low), high)
    return (_largest_below(x) + _smallest_above(x)) / 2


def _largest_below(x: Tensor) -> Tensor:
    """Of each place the least, over all places, of the value there plus the way to it, `[..., L]`."""
    way = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
    from_left = (x - way).cummin(-1).values + way
    from_right = (x + way).flip(-1).cummin(-1).values.flip(-1) - way
    return torch.minimum(from_left, from_right)


def _smallest_above(x: Tensor) -> Tensor:
    return -_largest_below(-x)


def _transposed_difference(z: Tensor) -> Tensor:
    """The adjoint of taking differences, `[..., L - 1]` to `[..., L]`."""
    edge = torch.zeros_like(z[..., :1])
    return torch.cat([edge, z], dim=-1) - torch.cat([z, edge], dim=-1)


@lru_cache(maxsize=8)
def _system(steps: int, penalty: float, device: torch.device) -> Tensor:
    """The inverse of I + penalty (I + D'D), `[L, L]`, which is symmetric."""
    one = torch.eye(steps, dtype=torch.float64, device=device)
    difference = one.diff(dim=0)
    inverse: Tensor = torch.linalg.inv(one + penalty * (one + difference.T @ difference))
    return inverse
