"""Projected gradient descent (Madry et al. 2018, https://arxiv.org/abs/1706.06083), as ascent on the objective."""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem

Count = Annotated[int, Field(ge=1)]
Schedule = Literal["constant", "linear", "cosine"]


def pgd(
    problem: AttackProblem,
    *,
    steps: Count = 100,
    restarts: Count = 1,
    step_size: Annotated[float, Field(gt=0)] | None = None,
    schedule: Schedule = "constant",
    momentum: Annotated[float, Field(ge=0)] = 0.0,
    random_start: bool = True,
    loss: str | None = None,
) -> None:
    """Steps along the steepest direction of the norm, each projected back into the region.

    steps: gradient steps of one restart.
    restarts: searches from different random starts; only samples still unbroken enter the next one.
    step_size: in the units of eps; None: 2.5 * eps / steps, so that every point of the region can be reached.
    schedule: `linear` and `cosine` let the step size fall from twice its value to zero over the steps.
    momentum: decay of the accumulated gradient (Dong et al. 2018, MI-FGSM, eq. 6); 0: plain PGD.
    random_start: False: begin at the clean input (then every restart is the same, and one is enough).
    loss: one of the objective's losses; None: its usual one.
    """
    size = 2.5 * problem.eps / steps if step_size is None else step_size
    for restart in range(restarts):
        x = problem.random_start(restart) if random_start else problem.clean.clone()
        velocity = x.new_zeros(len(x), *[1] * (x.ndim - 1))
        for step in range(steps):
            now = size * _share(schedule, step / steps)
            if momentum:
                x, velocity = _with_momentum(problem, x, momentum * velocity, now, loss)
            else:
                (x,) = problem.drop_done(problem.ascend(x, now, loss))
            if problem.finished:
                return
        problem.submit(x)
        problem.drop_done()
        if problem.finished:
            return


def _with_momentum(
    problem: AttackProblem, x: Tensor, velocity: Tensor, size: float, loss: str | None
) -> tuple[Tensor, Tensor]:
    """A step of `size` along what `velocity` becomes with the gradient at `x`, and that; of the samples still open."""
    _, gradient = problem.loss_and_gradient(x, loss)
    x, gradient, velocity = problem.drop_done(x, gradient, velocity)
    if problem.finished:
        return x, velocity
    velocity = velocity + _mean_one(gradient)
    return problem.project(x.add_(problem.steepest(velocity.clone(), x), alpha=size)), velocity


def _mean_one(gradient: Tensor) -> Tensor:
    """Each sample's gradient divided by its mean absolute value."""
    mean = gradient.flatten(1).abs().mean(1).clamp_min(1e-30)
    return gradient / mean.view(-1, *[1] * (gradient.ndim - 1))


def _share(schedule: Schedule, progress: float) -> float:
    """The step size relative to its mean: every schedule covers the same way in total."""
    if schedule == "linear":
        return 2 * (1 - progress)
    if schedule == "cosine":
        return 1 + math.cos(math.pi * progress)
    return 1.0
