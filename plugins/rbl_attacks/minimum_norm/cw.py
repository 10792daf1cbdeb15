"""Carlini & Wagner's l2 attack (IEEE S&P 2017, https://arxiv.org/abs/1608.04644, section VI-A)."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.adam import Adam
from rbl_attacks.minimum_norm.unit_gradient import per_sample
from rbl_attacks.minimum_norm.unit_scale import unit
from robustbench_lab.attack_problem import AttackProblem

_CHECKS = 10
_PROGRESS = 0.997
_FINAL_STEP = 0.01
"""Adam's last learning rate relative to the first."""

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


def cw(
    problem: AttackProblem,
    *,
    steps: Count = 100,
    binary_search_steps: Count = 9,
    step_size: Positive = 0.01,
    initial_const: Positive = 1e-3,
) -> None:
    """Adam on the squared distance plus c times the missing margin, and a binary search for each sample's c.

    The nearest input that succeeds is kept (the authors' confidence of 0). Four things differ from the authors' code.
    The bounds are kept by projection (the first way of section V-B), since their change of variables, a tanh, hardly
    moves values near a bound, such as a black background. A sample whose loss has not fallen by 0.3% in a tenth of the
    steps is done with its c; there whole batches are, at 0.01%. The learning rate falls geometrically. A value of c
    counts as large enough where its last steps succeed; there one success does, which the first step, of a length that
    does not depend on c, may bring.

    steps: gradient steps for one value of c, at most; the authors take up to 10000.
    binary_search_steps: values of c that are tried.
    step_size: Adam's first learning rate, in units of the data's range; it falls to a hundredth.
    initial_const: the first c, for data from 0 to 1; ten times as large after each failure until the first success.
    """
    problem.new_search(ascends=False)
    const = problem.clean.new_full((problem.open_samples,), initial_const)
    low, high = torch.zeros_like(const), torch.full_like(const, math.inf)
    for _ in range(binary_search_steps):
        enough = _descend(problem, const, steps, step_size)
        low, high = torch.where(enough, low, const), torch.where(enough, const, high)
        const = torch.where(high.isfinite(), (low + high) / 2, const * 10)


def _descend(problem: AttackProblem, const: Tensor, steps: int, step_size: float) -> Tensor:
    """Minimise for the given c; whether it is large enough for success, bool `[A]`."""
    enough = torch.zeros_like(const, dtype=torch.bool)
    before = torch.full_like(const, math.inf)
    search = _Search(problem, const)
    for first in range(0, steps, math.ceil(steps / _CHECKS)):
        last = min(first + math.ceil(steps / _CHECKS), steps)
        falling = [_FINAL_STEP ** (step / steps) for step in range(first, last)]
        succeeded, loss = search.run([step_size * share for share in falling])
        enough[search.rows] = succeeded
        going = (loss <= _PROGRESS * before).nonzero().squeeze(1)
        before = loss[going]
        search.keep(going)
        if search.problem.finished:
            break
    return enough


class _Search:
    """Adam for one value of c a sample, on the samples whose loss still falls."""

    def __init__(self, problem: AttackProblem, const: Tensor) -> None:
        self.problem = problem
        self.rows = torch.arange(len(const), device=const.device)
        """Where its samples stand among those of the whole search."""
        self._const = const
        self._x = problem.clean.clone()
        self._adam = Adam(self._x)

    def run(self, rates: list[float]) -> tuple[Tensor, Tensor]:
        """A step for each learning rate; whether one of the points succeeded, and the lowest loss of any, `[A]`."""
        succeeded = torch.zeros_like(self.rows, dtype=torch.bool)
        lowest = torch.full_like(self._const, math.inf)
        width, bounds = unit(self.problem), self.problem.bounds
        for rate in rates:
            probe = self.problem.probe(self._x, "margin")
            succeeded |= probe.succeeded
            change = (self._x - self.problem.clean).div_(width)
            loss = change.square().flatten(1).sum(1) - self._const * probe.loss.clamp_max(0)
            lowest = torch.minimum(lowest, loss)
            pull = torch.where(probe.loss < 0, self._const, 0) * (width / 2)
            descent = change.addcmul_(probe.gradient, per_sample(pull, change), value=-1)  # half the loss's gradient
            mean, size = self._adam.step(descent.nan_to_num_(0, 0, 0))
            self._x.addcdiv_(mean, size, value=-rate * width).clamp_(bounds.low, bounds.high)
        return succeeded, lowest

    def keep(self, index: Tensor) -> None:
        """Go on with some of the samples only: int64 `[B]`."""
        if len(index) == len(self.rows):
            return
        self.problem = self.problem.part(index)
        self._adam.keep(index)
        self.rows, self._const, self._x = self.rows[index], self._const[index], self._x[index]
