"""The shortest step from a point to a hyperplane that stays within the bounds, for linf, l2 and l1.

Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack", section 3.1
(https://arxiv.org/abs/1907.02044), eq. 4: for a point t, a hyperplane and a box, the d of least norm with t + d on the
hyperplane and in the box; where the box does not reach the hyperplane, the corner of the box that is nearest to it.

With v_i = |w_i| and room_i, the way that coordinate i has to the bound it moves to, the sizes s_i = |d_i| solve

    minimise |s|   subject to   sum_i v_i s_i = c,   0 <= s_i <= room_i,

and the optimality conditions give s_i = min(level, room_i) for linf and s_i = min(level v_i, room_i) for l2: one
unknown each, found by Newton steps on an equation that is concave and piecewise linear, without sorting. For l1 the
coordinates of the largest weights are used up in turn; no more than a few are sorted. The authors' code
(autoattack/fab_projections.py) sorts all coordinates. N is the number of samples, D of coordinates.

FAB spends most of its time outside the model here, on passes over `[N, D]`. So there are few of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustbench_lab.contracts import Bounds

_FAR = 1e30
"""Stands for a bound that is not there: zero times it is zero."""
_TINY = 1e-37
_EXACT = 3e-6
"""Share of the way to the hyperplane that may be left: sums in float32 resolve little more."""
_MOST_STEPS = 40
"""Newton steps at most; 2 or 3 are taken."""
_SHARE_SORTED = 16
"""For l1, at first one coordinate in so many is sorted."""


class HyperplaneInBox:
    """For each sample a hyperplane with normal `weight` `[N, D]`, as seen from any points within the bounds."""

    def __init__(self, weight: Tensor, bounds: Bounds) -> None:
        """Overwrites `weight`. Where it is not finite there is no hyperplane, and no step goes anywhere."""
        self._bounds, self._half_width = bounds, weight.new_tensor(bounds.width / 2)
        size = weight.abs()
        largest = size.amax(1)
        good = largest < math.inf  # false for NaN
        if not bool(good.all()):
            bad = ~good
            weight, size = (one.masked_fill(bad[:, None], 0) for one in (weight, size))
            largest = largest.masked_fill(bad, 0)
        # Divided by the largest weight, so that sums and squares neither under- nor overflow.
        self._scale = largest.clamp_min(_TINY)
        self._size = size.div_(self._scale[:, None])
        self._sign = weight.sign_()

    def step_from(self, x: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The shortest step from points `x` `[N, D]` within the bounds.

        value: the affine function that is zero on the hyperplane, at `x`, `[N]`; not finite: no step.

        Returns:
            How far each coordinate moves, and the sign that it moves against, 0 where it stays, `[N, D]` both.
        """
        amount = (value / self._scale).nan_to_num_(0, 0, 0)
        against = self._sign * amount.sign()[:, None]
        return self._sizes(x, against, amount.abs_()), against

    def _sizes(self, x: Tensor, against: Tensor, amount: Tensor) -> Tensor:
        """How far each coordinate moves against the sign `against`, `[N, D]`; any number where that is 0."""
        raise NotImplementedError

    def _room(self, x: Tensor, against: Tensor) -> Tensor:
        """How far each coordinate can move, `[N, ...]`; any number where `against` is 0."""
        low, high = self._bounds.low, self._bounds.high
        if math.isfinite(low) and math.isfinite(high):
            return torch.addcmul(self._half_width, x - (low + high) / 2, against)
        return torch.maximum((x - max(low, -_FAR)).mul_(against), (x - min(high, _FAR)).mul_(against))


class LinfHyperplane(HyperplaneInBox):
    """Steps of least largest change: all coordinates move as far, but for those that meet their bound."""

    def __init__(self, weight: Tensor, bounds: Bounds) -> None:
        super().__init__(weight, bounds)
        self._sum = self._size.sum(1)

    def _sizes(self, x: Tensor, against: Tensor, amount: Tensor) -> Tensor:
        room = self._room(x, against)
        level = _level(self._size, self._sum, room, amount)
        if bool((level == math.inf).any()):
            room.mul_(against.abs())  # coordinates that stay are not to count as the largest change
        return torch.minimum(room, level[:, None], out=room)


class L2Hyperplane(HyperplaneInBox):
    """Steps of least Euclidean length: along the normal, but for the coordinates that meet their bound."""

    def __init__(self, weight: Tensor, bounds: Bounds) -> None:
        super().__init__(weight, bounds)
        self._square = self._size.square()
        self._sum = self._square.sum(1)
        self._inverse = self._size.clamp_min(_TINY).reciprocal_()

    def _sizes(self, x: Tensor, against: Tensor, amount: Tensor) -> Tensor:
        room = self._room(x, against)
        level = _level(self._square, self._sum, room * self._inverse, amount)
        wanted = self._size * level.clamp_max_(_FAR)[:, None]
        return torch.minimum(room, wanted, out=room)


class L1Hyperplane(HyperplaneInBox):
    """Steps of least sum of changes: coordinates of the largest weights go all the way, as many as it takes."""

    def __init__(self, weight: Tensor, bounds: Bounds) -> None:
        super().__init__(weight, bounds)
        few = min(self._size.shape[1], max(64, self._size.shape[1] // _SHARE_SORTED))
        self._largest = self._size.topk(few, dim=1)

    def _sizes(self, x: Tensor, against: Tensor, amount: Tensor) -> Tensor:
        sizes = torch.zeros_like(x)
        size, order = self._largest
        moves, reached = self._used_up(x, against, amount, size, order)
        sizes.scatter_(1, order, moves)
        if not bool(reached.all()) and order.shape[1] < x.shape[1]:
            rest = (~reached).nonzero().squeeze(1)
            size, order = self._size[rest].sort(dim=1, descending=True)
            moves, _ = self._used_up(x[rest], against[rest], amount[rest], size, order)
            sizes[rest] = sizes[rest].scatter_(1, order, moves)
        return sizes

    def _used_up(
        self, x: Tensor, against: Tensor, amount: Tensor, size: Tensor, order: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Moves `[N, k]` of the coordinates `order`, by falling weight `size`; whether they suffice, bool `[N]`."""
        signs = against.gather(1, order)
        room = self._room(x.gather(1, order), signs).mul_(signs.abs())
        worth = size * room
        reached = worth.cumsum(1)
        left = amount[:, None] - (reached - worth)
        return torch.minimum(left.div_(size.clamp_min(_TINY)).clamp_(min=0), room), reached[:, -1] >= amount


HYPERPLANES: dict[str, type[HyperplaneInBox]] = {"linf": LinfHyperplane, "l2": L2Hyperplane, "l1": L1Hyperplane}
"""By the norm whose shortest steps they give."""


def _level(slope: Tensor, total: Tensor, end: Tensor, amount: Tensor) -> Tensor:
    """The level `[N]` at which sum_i slope_i min(level, end_i) is `amount`; infinite where none is.

    total: the sum of the slopes, `[N]`. The sum is concave in the level, so Newton steps from below rise to the
    solution and never beyond it, and end when the coordinates that have met their `end` are the right ones.
    """
    scratch = torch.empty_like(end)
    level, enough = amount / total.clamp_min(_TINY), amount * (1 - _EXACT)
    for _ in range(_MOST_STEPS):
        reached = torch.minimum(end, level[:, None], out=scratch).mul_(slope).sum(1)
        short = (reached < enough) & (level < math.inf)
        if not bool(short.any()):
            break
        rise = torch.gt(end, level[:, None], out=scratch).mul_(slope).sum(1)
        level = torch.where(short, level + (amount - reached) / rise, level)
    return level
