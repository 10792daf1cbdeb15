"""The geometry of the norm balls: for each sample, the points within `eps` of its clean input and within the bounds.

N is the number of samples, D the number of coordinates of one. Clean inputs lie within the bounds; so a point of a
ball that is clipped to the bounds comes closer to its clean input in every coordinate, and stays in the ball.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from robustbench_lab.contracts import Bounds
    from robustbench_lab.sample_rng import SampleRng

_RELATIVE_TOLERANCE = 1e-5
_COORDINATE_TOLERANCE = 2.0**-22
"""Four units of float32 rounding, relative to the largest value a coordinate can have."""


@dataclass(frozen=True, eq=False)
class NormBallRegion:
    """What the regions of all norms share."""

    order: ClassVar[float]
    """p of the norm."""
    clean: Tensor
    """`[N, ...]` float32 within the bounds."""
    eps: float
    bounds: Bounds

    def select(self, index: Tensor) -> Self:
        """The region around some of the samples: int64 indices `[M]`."""
        return replace(self, clean=self.clean.index_select(0, index))

    def cut(self, start: int, stop: int) -> Self:
        """The region around samples that follow each other, without a copy."""
        return replace(self, clean=self.clean[start:stop])

    def distance(self, x: Tensor) -> Tensor:
        """The norm of `x - clean`, `[N]`."""
        norm: Tensor = torch.linalg.vector_norm((x - self.clean).flatten(1), ord=self.order, dim=1)
        return norm

    def contains(self, x: Tensor) -> Tensor:
        """Whether each `x` is in its ball and within the bounds, bool `[N]`; never, where it is not finite.

        The distance may be above `eps` by 1e-5 of it, and each changed coordinate may be off by 2**-22 of the largest
        value in the data's range (of the sample, where the range is open): what float32 arithmetic does to a point
        that was meant to be inside.
        """
        slack = self._largest() * _COORDINATE_TOLERANCE
        lowest, highest = x.flatten(1).amin(1), x.flatten(1).amax(1)  # aminmax(dim=1) takes 14 times as long on a CPU
        finite = lowest.isfinite() & highest.isfinite()
        within = (lowest >= self.bounds.low - slack) & (highest <= self.bounds.high + slack)
        return finite & within & self._in_ball(x, slack)

    def _largest(self) -> Tensor:
        """The largest value in the data's range, or in the sample where that is open, `[N]`."""
        limits = [abs(bound) for bound in (self.bounds.low, self.bounds.high)]
        if all(map(math.isfinite, limits)):
            return self.clean.new_full((len(self.clean),), max(limits))
        known = max(filter(math.isfinite, limits), default=0.0)
        return self.clean.abs().flatten(1).amax(1).clamp_(min=known)

    def _in_ball(self, x: Tensor, slack: Tensor) -> Tensor:
        """Whether the distance is at most `eps`, where each changed coordinate may be off by `slack` `[N]`."""
        changed = _changes(x, self.clean)
        return self.distance(x) <= self.eps * (1 + _RELATIVE_TOLERANCE) + slack * changed ** (1 / self.order)

    def _clip(self, x: Tensor) -> Tensor:
        """`x`, in place, into the bounds."""
        return x.clamp_(self.bounds.low, self.bounds.high)

    def _start(self, direction: Tensor) -> Tensor:
        """`clean + eps * direction`, clipped, for points `[N, D]` of the unit ball; `direction` is overwritten.

        This is the nearest point of the region, since the unclipped point is in the ball.
        """
        return self._clip(direction.mul_(self.eps).reshape(self.clean.shape).add_(self.clean))


class LinfRegion(NormBallRegion):
    """Each coordinate within `eps` of the clean one: a box."""

    order = math.inf

    def distance(self, x: Tensor) -> Tensor:
        """The largest change of a coordinate, `[N]`."""
        return (x - self.clean).abs_().flatten(1).amax(1)  # vector_norm takes 16 times as long on a CPU

    def _in_ball(self, x: Tensor, slack: Tensor) -> Tensor:
        return self.distance(x) <= self.eps * (1 + _RELATIVE_TOLERANCE) + slack

    @cached_property
    def _lowest(self) -> Tensor:
        return self._clip(self.clean - self.eps)

    @cached_property
    def _highest(self) -> Tensor:
        return self._clip(self.clean + self.eps)

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the region, `[N, ...]`; overwrites `x`."""
        return x.clamp_(self._lowest, self._highest)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """Uniform in the ball, then clipped to the bounds, `[N, ...]`."""
        return self._start(rng.uniform(_dimension(self.clean), draw).mul_(2).sub_(1))

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        """The sign of the gradient, `[N, ...]`; overwrites it."""
        return gradient.sign_()


class L2Region(NormBallRegion):
    """Within Euclidean distance `eps`."""

    order = 2.0

    def project(self, x: Tensor) -> Tensor:
        """`x - clean` shortened to `eps`, then clipped to the bounds, `[N, ...]`.

        The result is in the region. It is the nearest point of the ball, clipped, and not always the nearest point of
        the region, which would need an iteration; this is what the published attacks do (Croce & Hein 2020, APGD).
        """
        delta = x - self.clean
        norm = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        delta.mul_(_per_sample((self.eps / norm).clamp_(max=1), delta))
        return self._clip(delta.add_(self.clean))

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """Uniform in the ball, then clipped to the bounds, `[N, ...]`.

        The first D of D + 2 coordinates of a uniform point on the unit sphere are uniform in the unit ball (Barthe,
        Guédon, Mendelson & Naor, Annals of Probability 2005), which needs no D-th root.
        """
        (dimension,) = _dimension(self.clean)
        normal = rng.normal((dimension + 2,), draw)
        norm = _row_sums(normal.square()).sqrt_()
        return self._start(normal[:, :dimension] / norm)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        """The gradient at Euclidean length 1, `[N, ...]`; 0 where it is 0."""
        # Divided by its largest entry first: the squares of a saturated model's gradient underflow in float32.
        largest = gradient.abs().flatten(1).amax(1)
        scaled = gradient / _per_sample(torch.where(largest > 0, largest, 1), gradient)
        norm = torch.linalg.vector_norm(scaled.flatten(1), dim=1)
        return scaled.div_(_per_sample(torch.where(norm > 0, norm, 1), gradient))


class L1Region(NormBallRegion):
    """The absolute changes sum to at most `eps`."""

    order = 1.0

    def distance(self, x: Tensor) -> Tensor:
        """The sum of the absolute changes, `[N]`."""
        return (x - self.clean).abs_().flatten(1).sum(1)  # vector_norm takes 5 times as long on a CPU

    def project(self, x: Tensor) -> Tensor:
        """The region's nearest point in the Euclidean sense, `[N, ...]`; overwrites `x`."""
        rows = max(1, _L1_COORDINATES_AT_ONCE // max(1, self.clean[:1].numel()))
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            x[part] = _nearest_in_l1_ball_and_box(x[part], self.clean[part], self.eps, self.bounds)
        return x

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """Uniform in the ball, then clipped to the bounds, `[N, ...]`.

        D of D + 1 exponential numbers divided by their sum, with random signs, are uniform in the unit ball (Barthe,
        Guédon, Mendelson & Naor, Annals of Probability 2005).
        """
        (dimension,) = _dimension(self.clean)
        size = rng.exponential((dimension + 1,), draw)
        sign = rng.integers(2, (dimension,), f"{draw}/sign").mul_(2).sub_(1)
        return self._start(size[:, :dimension] / _row_sums(size) * sign)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """A step of total size 1, in equal parts on the 1% of coordinates (at least one) of largest gradient.

        Coordinates whose bound stops them are passed over, and those with gradient 0; 0 where none is left. The one
        coordinate of largest gradient would rise most, but is used up after one step: Tramèr & Boneh, "Adversarial
        training and robustness for multiple perturbations", NeurIPS 2019 (SLIDE).
        """
        gradient, position = gradient.flatten(1), x.flatten(1)
        movable = torch.where(gradient > 0, position < self.bounds.high, position > self.bounds.low)
        size, chosen = torch.where(movable, gradient.abs(), 0).topk(max(1, gradient.shape[1] // 100), dim=1)
        used = size > 0
        step = gradient.gather(1, chosen).sign() * used / used.sum(1, keepdim=True).clamp_(min=1)
        return torch.zeros_like(gradient).scatter_(1, chosen, step).reshape(x.shape)


_L1_COORDINATES_AT_ONCE = 1 << 17
"""Bounds the memory, and on a CPU keeps the float64 temporaries in its cache."""
_NEWTON_STEPS = 40
_BISECTIONS = 60


def _nearest_in_l1_ball_and_box(x: Tensor, clean: Tensor, eps: float, bounds: Bounds) -> Tensor:
    """The exact Euclidean projection onto the intersection of the l1 ball and the bounds, `[N, ...]`.

    With delta = x - clean and room_i how far coordinate i may go in the direction of delta_i, it is

        sign(delta_i) * clamp(|delta_i| - threshold, 0, room_i)

    where the threshold is 0 if that is in the ball, and otherwise the number that makes the sizes sum to `eps`:
    Croce & Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021, Prop. 2.1.
    """
    base = clean.flatten(1).to(torch.float64)
    delta = x.flatten(1) - base
    room = torch.where(delta > 0, bounds.high - base, base - bounds.low)
    size = delta.abs()
    kept = _shrunk(size, _l1_threshold(size, room, eps), room)
    nearest = torch.copysign(kept, delta).add_(base).clamp_(bounds.low, bounds.high)
    return nearest.to(x.dtype).reshape(x.shape)


def _l1_threshold(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """The threshold `[N, 1]` at which clamp(size - threshold, 0, room) sums to `eps`, or 0 if it sums to less at 0.

    The sum falls piecewise linearly, so a Newton step from a point on the right piece is exact; a step that leaves the
    bracket is replaced by a bisection, and so are all that come after 40 (in practice 3 to 30 are taken).
    """
    threshold = low = size.new_zeros(len(size), 1)
    high = size.amax(1, keepdim=True)
    for turn in range(_NEWTON_STEPS + _BISECTIONS):
        kept = _shrunk(size, threshold, room)
        excess = kept.sum(1, keepdim=True) - eps
        solved = (excess.abs() <= 1e-7 * eps) | ((excess < 0) & (threshold == 0))
        if not bool((~solved & excess.isfinite()).any()):
            return threshold
        low = torch.where(excess > 0, threshold, low)
        high = torch.where(excess > 0, high, threshold)
        newton = threshold + excess / ((kept > 0) & (kept < room)).sum(1, keepdim=True)
        use_newton = (newton > low) & (newton < high) & (turn < _NEWTON_STEPS)
        threshold = torch.where(solved, threshold, torch.where(use_newton, newton, (low + high) / 2))
    # Sizes so far above eps that float64 cannot resolve the sum: at the bracket's upper end it is at most eps.
    return torch.where(solved, threshold, high)


def _shrunk(size: Tensor, threshold: Tensor, room: Tensor) -> Tensor:
    return torch.minimum((size - threshold).clamp_(min=0), room)


class L0Region(NormBallRegion):
    """At most `eps` coordinates differ from the clean ones, exactly; a fraction of `eps` is left aside."""

    order = 0.0

    @property
    def _count(self) -> int:
        """Coordinates that may change."""
        return int(min(self.eps, self.clean[:1].numel()))

    def distance(self, x: Tensor) -> Tensor:
        """How many coordinates differ from the clean ones, `[N]`, as float32."""
        return _changes(x, self.clean)

    def _in_ball(self, x: Tensor, slack: Tensor) -> Tensor:  # noqa: ARG002  (a coordinate has changed or has not)
        return self.distance(x) <= self.eps

    def project(self, x: Tensor) -> Tensor:
        """The region's nearest point in the Euclidean sense, `[N, ...]`.

        A coordinate that may change goes to the nearest value within the bounds; those whose change brings the point
        nearer to `x` by most are kept (Croce & Hein, "Sparse and imperceivable adversarial attacks", ICCV 2019,
        section 3). Of equal ones as many are kept as there is room for.
        """
        clipped = x.clamp(self.bounds.low, self.bounds.high)
        if self._count == self.clean[:1].numel():
            return clipped
        delta, beyond = (one.double().flatten(1) for one in (clipped - self.clean, x - clipped))
        kept = (delta * (delta + 2 * beyond)).topk(self._count, dim=1).indices
        return self._changed(kept, clipped)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """`eps` random coordinates, each uniform within the bounds, `[N, ...]`.

        Where a bound is open, from or to 1 beyond the sample's own lowest or highest value.
        """
        lowest, highest = self.clean.flatten(1).aminmax(dim=1, keepdim=True)
        low = torch.full_like(lowest, self.bounds.low) if math.isfinite(self.bounds.low) else lowest - 1
        high = torch.full_like(highest, self.bounds.high) if math.isfinite(self.bounds.high) else highest + 1
        values = rng.uniform(_dimension(self.clean), draw).mul_(high - low).add_(low)
        order = rng.uniform(_dimension(self.clean), f"{draw}/coordinates").argsort(dim=1, stable=True)
        return self._changed(order[:, : self._count], self._clip(values).reshape(self.clean.shape))

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The one coordinate whose way to its bound raises the loss most, moved all that way, `[N, ...]`.

        Any step along one coordinate is of size 1 here. An open bound is taken to be 1 away; 0 where no step helps.
        """
        gradient, position = gradient.flatten(1), x.flatten(1)
        room = torch.where(gradient > 0, self.bounds.high - position, position - self.bounds.low)
        room = torch.where(room.isfinite(), room, 1).clamp_(min=0)
        gain, chosen = (gradient.abs() * room).max(dim=1, keepdim=True)
        step = gradient.gather(1, chosen).sign() * room.gather(1, chosen) * (gain > 0)
        return torch.zeros_like(gradient).scatter_(1, chosen, step).reshape(x.shape)

    def _changed(self, chosen: Tensor, values: Tensor) -> Tensor:
        """The clean inputs with the coordinates `chosen` `[N, k]` taken from `values` `[N, ...]`."""
        taken = values.flatten(1).gather(1, chosen)
        return self.clean.flatten(1).scatter(1, chosen, taken).reshape(self.clean.shape)


# ---------------------------------------------------------------- shapes and sums


def _dimension(clean: Tensor) -> tuple[int]:
    return (math.prod(clean.shape[1:]),)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """`[N]` to `[N, 1, ...]`, to be multiplied with `like` `[N, ...]`."""
    return values.reshape(-1, *(1,) * (like.dim() - 1))


def _changes(x: Tensor, clean: Tensor) -> Tensor:
    """How many coordinates differ, `[N]`, as float32."""
    return (x - clean).ne_(0).flatten(1).sum(1)  # a sum of bools takes 3 times as long on a CPU


def _row_sums(values: Tensor) -> Tensor:
    """`[N, D]` to `[N, 1]` by adding halves elementwise: bit by bit the same on every device and in every batch."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        folded = values[:, :-half].clone()
        folded[:, :half] += values[:, -half:]
        values = folded
    return values
