"""VMI-FGSM: variance tuning (Wang & He, CVPR 2021, https://arxiv.org/abs/2103.15571)."""

from typing import Annotated

import torch
from pydantic import Field
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


def vmifgsm(
    problem: AttackProblem,
    *,
    steps: Count = 10,
    step_size: Size | None = None,
    decay: Decay = 1.0,
    neighbours: Count = 20,
    beta: Annotated[float, Field(ge=0)] = 1.5,
    loss: str | None = None,
) -> None:
    """Momentum steps whose gradients are corrected by how the gradient varied around the last iterate (Algorithm 1).

    steps: gradient steps.
    step_size: in the units of eps; None: eps / steps.
    decay: what is kept of the accumulated gradient in a step.
    neighbours: random points around an iterate (N in the paper).
    beta: how far they are, in eps: each coordinate within beta * eps (in l2: that, divided by the root of D).
    loss: one of the objective's losses; None: its usual one.
    """
    size = step_size_or_default(problem, step_size, steps)
    x, velocity, variance = problem.clean.clone(), torch.zeros_like(problem.clean), torch.zeros_like(problem.clean)
    problem.new_search(ascends=False)
    for step in range(steps):
        _, gradient = problem.loss_and_gradient(x, loss)
        x, velocity, variance, gradient = problem.drop_done(x, velocity, variance, gradient)
        if problem.finished:
            return
        velocity = accumulated(problem, velocity, gradient + variance, decay)
        if step + 1 < steps:
            variance = _mean_around(problem, x, loss, beta, [f"neighbour/{step}/{one}" for one in range(neighbours)])
            variance -= gradient
        x = ascend(problem, x, velocity, size)
    problem.submit(x)


def _mean_around(problem: AttackProblem, x: Tensor, loss: str | None, beta: float, draws: list[str]) -> Tensor:
    """The mean gradient at random points around `x`, one for each of the `draws`, `[A, ...]`.

    As in the paper's code the points are not clipped to the bounds.
    """
    radius = beta * problem.eps * per_coordinate(problem) * problem.unit
    total = torch.zeros_like(x)
    for draw in draws:
        point = problem.uniform(draw).mul_(2).sub_(1).mul_(radius).add_(x)
        _, gradient = problem.loss_and_gradient(point, loss, candidate=False)
        total += gradient
    return total / len(draws)
