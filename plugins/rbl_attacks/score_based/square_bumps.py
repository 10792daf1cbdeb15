"""The moves of the Square Attack in l2 and l1: the budget of two windows goes to one of them (Algorithm 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from rbl_attacks.score_based.bump_shapes import bump_shapes
from rbl_attacks.score_based.image_windows import ImageShape, signs
from robustbench_lab.attack_problem import AttackProblem

TINY = 1e-12


class Bumps(ABC):
    """Each change takes what two windows hold, and gives it to the first in a new form.

    The new form is the old one of that window plus a bump, in each channel with a sign of its own. "Power" is the norm
    to the power of its order: the sum of squares in l2, of sizes in l1.
    """

    order: ClassVar[int]
    """p of the norm."""
    least_gain = 0.0

    def __init__(self, problem: AttackProblem, image: ImageShape) -> None:
        self._problem, self._image = problem, image
        self.state: tuple[Tensor, ...] = ()
        """The change kept for each input, `[A, D]`, and its power, `[A]`; then what the norm needs besides."""

    @abstractmethod
    def power(self, change: Tensor) -> Tensor:
        """Over the last axis."""

    @abstractmethod
    def granted(self, held: Tensor, unused: Tensor) -> Tensor:
        """The power that the window gets in each channel, `[A, C]`.

        held: what both windows had, `[A, C]`. unused: what is left of the budget, `[A, 1]`.
        """

    @abstractmethod
    def started(self, delta: Tensor) -> Tensor:
        """The inputs, `[A, D]`, that the first change `[A, D]` leads to."""

    @abstractmethod
    def moved(self, new: Tensor, power: Tensor) -> Tensor:
        """The inputs, `[A, D]`, that the change in `state` leads to; may use the memory of the last ones.

        new: what stands in the window now, `[A, C, K]`. power: of the whole change now, `[A]`.
        """

    def numbers(self) -> int:
        """Two for each of two places, one for the bump's direction, and a sign for each channel."""
        return 5 + self._image.channels

    def start(self, draw: str) -> Tensor:
        """A grid of bumps, about five by five."""
        image = self._image
        side = max(1, min(image.height, image.width) // 5)
        rows, columns = image.height // side, image.width // side
        numbers = self._problem.uniform(draw, (1 + image.channels, rows, columns))
        bump = bump_shapes((side, side), self.order, numbers.device)[_either(numbers[:, 0])]
        tiles = bump[:, None] * signs(numbers[:, 1:, :, :, None, None])  # [A, C, rows, columns, side, side]
        delta = numbers.new_zeros(len(numbers), image.channels, image.height, image.width)
        top, left = (image.height - rows * side) // 2, (image.width - columns * side) // 2
        grid = delta[:, :, top : top + rows * side, left : left + columns * side]
        grid.copy_(tiles.transpose(3, 4).flatten(4).flatten(2, 3))
        self._x = self.started(delta.flatten(1))
        change = self._x - self._problem.clean.flatten(1)
        self.state = (change, self.power(change))
        return self._shaped(self._x)

    def plan(self, share: float, numbers: Tensor) -> tuple[Tensor, ...]:
        """Corners of two windows, `[A, Q, 1]`; which bump, `[A, Q]`; and the sign of each channel, `[A, Q, C, 1]`."""
        size = self._image.window(share, least=3, odd=True)
        self._offsets = self._image.offsets(size, numbers.device)
        self._bumps = bump_shapes(size, self.order, numbers.device).flatten(1)
        to, other = (self._image.corners(size, corner) for corner in (numbers[:, :, :2], numbers[:, :, 2:4]))
        return to[:, :, None], other[:, :, None], _either(numbers[:, :, 4]), signs(numbers[:, :, 5:, None])

    def change(self, *planned: Tensor) -> Tensor:
        """A bump in one window of each sample, at the cost of that window and another."""
        delta, power = self.state[:2]
        to, other, which, sign = planned
        self._to, self._from = self._offsets + to, self._offsets + other
        self._old = delta.gather(1, self._to)
        delta.scatter_(1, self._to, 0)
        self._lost = delta.gather(1, self._from)
        delta.scatter_(1, self._from, 0)
        by_channel = (len(delta), self._image.channels, -1)
        old, lost = self._old.view(by_channel), self._lost.view(by_channel)
        held = self.power(old) + self.power(lost)
        form = self._unit((self._bumps.index_select(0, which)[:, None] * sign).add_(self._unit(old)))
        unused = (self._problem.eps**self.order - power).clamp_(min=0)
        new = form.mul_(self.granted(held, unused[:, None]).pow_(1 / self.order)[:, :, None])
        delta.scatter_(1, self._to, new.flatten(1))
        self._x = self.moved(new, power - held.sum(1) + self.power(new).sum(1))
        return self._shaped(self._x)

    def settle(self, better: Tensor) -> None:
        """Undo the changes that are not better, and measure those that are: the bounds may have cut them short."""
        delta, power = self.state[:2]
        delta.scatter_(1, self._from, self._lost).scatter_(1, self._to, self._old)
        kept = better.nonzero().squeeze(1)
        if len(kept):
            change = self._x.index_select(0, kept) - self._problem.clean.flatten(1).index_select(0, kept)
            delta.index_copy_(0, kept, change)
            power.index_copy_(0, kept, self.power(change))

    def best(self) -> Tensor:
        """The inputs kept so far."""
        bounds = self._problem.bounds
        return (self._problem.clean + self._shaped(self.state[0])).clamp_(bounds.low, bounds.high)

    def _unit(self, values: Tensor) -> Tensor:
        """At norm 1 over the last axis; 0 where it is 0."""
        return values / (torch.linalg.vector_norm(values, ord=self.order, dim=-1, keepdim=True) + TINY)

    def _shaped(self, flat: Tensor) -> Tensor:
        return flat.view_as(self._problem.clean)


class L2Bumps(Bumps):
    """The whole change is brought to the length of the budget, and then into the bounds."""

    order = 2

    def power(self, change: Tensor) -> Tensor:
        """The sum of squares over the last axis."""
        return change.square().sum(-1)

    def granted(self, held: Tensor, unused: Tensor) -> Tensor:
        """What the channel held, and its part of what is left."""
        return held + unused / self._image.channels

    def started(self, delta: Tensor) -> Tensor:
        """Scaled to the budget."""
        return self._scaled(delta, self.power(delta), torch.empty_like(delta))

    def moved(self, new: Tensor, power: Tensor) -> Tensor:  # noqa: ARG002
        """Scaled to the budget."""
        delta = self.state[0]
        return self._scaled(delta, power, self._x[: len(delta)])

    def _scaled(self, delta: Tensor, power: Tensor, out: Tensor) -> Tensor:
        bounds = self._problem.bounds
        scale = self._problem.eps * power.clamp(min=TINY).rsqrt()
        x = torch.addcmul(self._problem.clean.flatten(1), delta, scale[:, None], out=out)
        return x.clamp_(bounds.low, bounds.high)


def _either(uniform: Tensor) -> Tensor:
    """0 or 1 for each number in [0, 1), with equal chances."""
    return uniform.ge(0.5).long()
