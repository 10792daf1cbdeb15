"""What the transfer attacks share: accumulated gradients, and steps along them."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem

Count = Annotated[int, Field(ge=1)]
Size = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0)]

_ORDER = {"linf": math.inf, "l2": 2.0}


def accumulated(problem: AttackProblem, velocity: Tensor, gradient: Tensor, decay: float) -> Tensor:
    """`decay * velocity + gradient / mean(|gradient|)`, `[A, ...]`; overwrites both.

    velocity: with respect to inputs in units of the budget. gradient: with respect to inputs in the data's own.

    Dong et al. 2018 (eq. 6) divide by the sum of the absolute values; the published code of this family (MI, NI, DI,
    VMI) by their mean, which matters where the velocity is added to an input. What is not finite in a gradient counts
    as 0.
    """
    gradient.mul_(problem.unit)
    mean = _mean_size(gradient)
    if not bool(mean.isfinite().all()):
        mean = _mean_size(gradient.nan_to_num_(0.0, 0.0, 0.0))
    mean = mean.clamp_min(torch.finfo(gradient.dtype).tiny)
    return velocity.mul_(decay).addcdiv_(gradient, mean.view(-1, *[1] * (gradient.ndim - 1)))


def _mean_size(gradient: Tensor) -> Tensor:
    return gradient.abs().flatten(1).mean(1)  # vector_norm takes 4 times as long on a CPU


def step_size_or_default(problem: AttackProblem, step_size: float | None, steps: int) -> float:
    """The step size; by default eps / steps, with which the last iterate just reaches the ball's surface."""
    return problem.eps / steps if step_size is None else step_size


def ascend(problem: AttackProblem, x: Tensor, velocity: Tensor, size: float) -> Tensor:
    """One step of `size` from `x` along the steepest direction of `velocity`, back in the region; overwrites `x`."""
    return problem.project(x.add_(problem.steepest(velocity / problem.unit, x), alpha=size))


def per_coordinate(problem: AttackProblem) -> float:
    """The coordinate c of the corner (c, ..., c) of the largest cube in the unit ball: 1 in linf, D**-0.5 in l2.

    The published attacks are for linf. What they add to every coordinate is scaled by this in other norms.
    """
    dimension = math.prod(problem.clean.shape[1:])
    return float(dimension ** (-1 / _ORDER[problem.norm or "linf"]))
