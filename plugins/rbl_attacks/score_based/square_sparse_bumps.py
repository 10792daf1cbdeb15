"""The moves of the Square Attack in l1: bumps, from which a projection makes sparse changes."""

from __future__ import annotations

import torch
from torch import Tensor

from rbl_attacks.score_based.square_bumps import Bumps

ROOM = 1 - 2e-6
"""Share of the budget that is used: float32 sums of thousands of sizes may be off by what is left."""
ROUNDS = 40
"""Steps to the threshold at most; about 6 are taken."""


class L1Bumps(Bumps):
    """Each window gets as many times its share as there are channels; then the whole is projected (AutoAttack's).

    The projection onto the l1 ball and the bounds takes a threshold off the size of each element, down to 0 (Croce &
    Hein, "Mind the box", ICML 2021, https://arxiv.org/abs/2103.01208, Prop. 2.1). Outside the window nothing has
    changed since the last change was kept. So the sizes are sorted only then, with their sums from the largest down,
    and the threshold is found from two numbers of these and from the elements of the windows.
    """

    order = 1

    def power(self, change: Tensor) -> Tensor:
        """The sum of sizes over the last axis."""
        return change.abs().sum(-1)

    def granted(self, held: Tensor, unused: Tensor) -> Tensor:
        """What the channel held, as many times as there are channels, and all that is left."""
        return held * self._image.channels + unused

    def started(self, delta: Tensor) -> Tensor:
        """Projected."""
        problem = self._problem
        return problem.project(problem.clean + self._shaped(delta)).flatten(1)

    def start(self, draw: str) -> Tensor:
        """A grid of bumps, projected."""
        x = super().start(draw)
        self.state = (*self.state, *_sorted(self.state[0]))
        return x

    def settle(self, better: Tensor) -> None:
        """Undo the changes that are not better, and sort the others anew."""
        super().settle(better)
        delta, _, sizes, sums = self.state
        kept = better.nonzero().squeeze(1)
        sizes[kept], sums[kept] = _sorted(delta[kept])

    def moved(self, new: Tensor, power: Tensor) -> Tensor:  # noqa: ARG002
        """Projected: each element shrunk by the threshold, and clipped to the bounds."""
        delta, clean, bounds = self.state[0], self._problem.clean.flatten(1), self._problem.bounds
        change, base = new.flatten(1), clean.gather(1, self._to)
        room = torch.where(change > 0, bounds.high - base, base - bounds.low)
        threshold = self._threshold(change.abs(), room)
        x = torch.clamp(delta, -threshold, threshold, out=self._x[: len(delta)])
        return torch.sub(delta, x, out=x).add_(clean).clamp_(bounds.low, bounds.high)

    def _threshold(self, new: Tensor, room: Tensor) -> Tensor:
        """What to take off every size, so that the sizes sum to the budget, `[A, 1]`; 0 where they sum to less.

        new: the sizes in the window, `[A, K]`. room: how far each may go, `[A, K]`; the others are in the bounds.
        The sum falls with the threshold, piecewise linearly: Newton's steps, and bisections where they lead astray.
        """
        _, _, sizes, sums = self.state
        gone = torch.cat([self._old, self._lost], dim=1).abs()
        budget = self._problem.eps * ROOM
        low = threshold = sums.new_zeros(len(sums), 1)
        high = torch.maximum(sizes[:, -1:], new.amax(1, keepdim=True))
        for _ in range(ROUNDS):
            first = torch.searchsorted(sizes, threshold, right=True)
            left_gone = (gone - threshold).clamp_(min=0)
            left_new = torch.minimum((new - threshold).clamp_(min=0), room)
            counted = sizes.shape[1] - first
            excess = sums.gather(1, first) - counted * threshold
            excess = excess - left_gone.sum(1, keepdim=True) + left_new.sum(1, keepdim=True) - budget
            solved = (excess.abs() <= 1e-6 * budget) | ((excess < 0) & (threshold == 0))
            if bool(solved.all()):
                return threshold
            low, high = torch.where(excess > 0, threshold, low), torch.where(excess > 0, high, threshold)
            falling = counted - left_gone.sign().sum(1, keepdim=True)
            falling = falling + ((left_new > 0) & (left_new < room)).sum(1, keepdim=True)
            newton = threshold + excess / falling
            inside = (newton > low) & (newton < high)
            threshold = torch.where(solved, threshold, torch.where(inside, newton, (low + high) / 2))
        return torch.where(solved, threshold, high)


def _sorted(change: Tensor) -> tuple[Tensor, Tensor]:
    """The sizes in rising order, `[B, D]`, and the sum of each and all above it, `[B, D + 1]`."""
    sizes = change.abs().sort(dim=1).values
    sums = sizes.new_zeros(len(sizes), sizes.shape[1] + 1)
    sums[:, :-1] = sizes.flip(1).cumsum(1, dtype=torch.float64).flip(1)
    return sizes, sums
