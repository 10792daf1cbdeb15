"""NI-FGSM and SI-NI-FGSM: Nesterov momentum, and invariance to scale (Lin et al., ICLR 2020).

Paper: https://arxiv.org/abs/1908.06281.
"""

import math

import torch
from torch import Tensor

from rbl_attacks.transfer.momentum import (
    Count,
    Decay,
    Size,
    accumulated,
    ascend,
    per_coordinate,
    step_size_or_default,
)
from robustbench_lab.attack_problem import AttackProblem


def nifgsm(
    problem: AttackProblem,
    *,
    steps: Count = 10,
    step_size: Size | None = None,
    decay: Decay = 1.0,
    scales: Count = 1,
    loss: str | None = None,
) -> None:
    """Steps along the accumulated gradient, each gradient taken where the momentum would lead (eq. 6 to 8).

    The look-ahead is mostly outside the ball; it counts as a candidate where it is not. The last iterate is handed in.

    steps: gradient steps.
    step_size: in the units of eps; None: eps / steps.
    decay: what is kept of the accumulated gradient in a step.
    scales: copies x, x/2, x/4, ... that the gradient is the mean over; 5: SI-NI-FGSM (Algorithm 1).
    loss: one of the objective's losses; None: its usual one.
    """
    size = step_size_or_default(problem, step_size, steps)
    reach = decay * size * per_coordinate(problem)
    x, velocity = problem.clean.clone(), torch.zeros_like(problem.clean)
    problem.new_search(ascends=scales == 1)
    for _ in range(steps):
        ahead = x + reach * problem.unit * velocity
        _, gradient = problem.loss_and_gradient(ahead, loss, candidate=problem.contains(ahead))
        x, velocity, ahead, gradient = problem.drop_done(x, velocity, ahead, gradient)
        if problem.finished:
            return
        for halvings in range(1, scales):
            gradient += _gradient_of_copy(problem, ahead, loss, 0.5**halvings)
        velocity = accumulated(problem, velocity, gradient, decay)
        x = ascend(problem, x, velocity, size)
    problem.submit(x)


def _gradient_of_copy(problem: AttackProblem, x: Tensor, loss: str | None, scale: float) -> Tensor:
    """The gradient, with respect to `x`, of the loss at `x` scaled towards the lower bound (0 for images)."""
    black = problem.bounds.low if math.isfinite(problem.bounds.low) else 0.0
    _, gradient = problem.loss_and_gradient(black + scale * (x - black), loss, candidate=False)
    return scale * gradient
