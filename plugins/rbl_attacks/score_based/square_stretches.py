"""The moves of the Square Attack on series: for squares of pixels, stretches of steps. Not in the paper."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rbl_attacks.score_based.image_windows import signs
from robustbench_lab.attack_problem import AttackProblem


class Stretches:
    """Each change pushes all series of one stretch of steps across the region, each up or down, and projects.

    In a box of `clean - eps` to `clean + eps` this is the paper's move in linf. Any other region shapes
    what the push leads to: few steps, no steep changes, a length in l2.
    """

    least_gain = 1e-5
    """Where several series have one model, opposite pushes cancel out, and rounding would decide between equals."""

    def __init__(self, problem: AttackProblem) -> None:
        self._problem = problem
        self._steps, self._series = problem.clean.shape[1:]
        self.state: tuple[Tensor, ...] = ()

    def numbers(self) -> int:
        """One for the place, and a sign for each series."""
        return 1 + self._series

    def start(self, draw: str) -> Tensor:
        """Every series raised or lowered as a whole."""
        sign = signs(self._problem.uniform(draw, (1, self._series)))
        self.state = (self._pushed(self._problem.clean, sign.expand(-1, self._steps, -1), self._steps),)
        return self.state[0]

    def plan(self, share: float, numbers: Tensor) -> tuple[Tensor, ...]:
        """Where stretches begin, `[A, Q]`, and in which direction each series goes there, `[A, Q, C]`."""
        self._length = max(1, round(share * self._steps))
        places = self._steps - self._length + 1
        return (numbers[:, :, 0] * places).long(), signs(numbers[:, :, 1:])

    def change(self, *planned: Tensor) -> Tensor:
        """One stretch of each sample, pushed."""
        first, sign = planned
        step = torch.arange(self._steps, device=first.device) - first[:, None]
        inside = (step >= 0) & (step < self._length)
        self._tried = self._pushed(self.state[0], inside[:, :, None] * sign[:, None], self._length)
        return self._tried

    def settle(self, better: Tensor) -> None:
        """Keep the changes that are better."""
        self.state = (self._tried.where(better[:, None, None], self.state[0]),)

    def best(self) -> Tensor:
        """The inputs kept so far."""
        return self.state[0]

    def _pushed(self, x: Tensor, way: Tensor, steps: int) -> Tensor:
        """way: -1, 0 or 1 for each value of `x`; steps: of which it is not 0."""
        eps = self._problem.eps
        size = eps / math.sqrt(steps * self._series) if self._problem.norm == "l2" else 2 * eps
        return self._problem.project(x + way * (size * self._problem.unit))
