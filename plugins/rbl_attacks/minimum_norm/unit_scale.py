"""Published constants are for data from 0 to 1; other data are searched in units of their range."""

import math

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem


def unit(problem: AttackProblem) -> float:
    """The width of the data's range; 1 where it is open."""
    return problem.bounds.width if math.isfinite(problem.bounds.width) else 1.0


def moved(problem: AttackProblem, change: Tensor) -> Tensor:
    """The clean inputs changed by `change` `[A, ...]` (in units), within the bounds.

    A coordinate with a change of 0 has its clean value, bit by bit.
    """
    x = torch.add(problem.clean, change, alpha=unit(problem))
    return x.clamp_(problem.bounds.low, problem.bounds.high)


def clip_(problem: AttackProblem, change: Tensor) -> Tensor:
    """`change` `[A, ...]` (in units), in place, so that the changed inputs are within the bounds."""
    if not (math.isfinite(problem.bounds.low) or math.isfinite(problem.bounds.high)):
        return change
    scale = unit(problem)
    return (
        change.mul_(scale)
        .add_(problem.clean)
        .clamp_(problem.bounds.low, problem.bounds.high)
        .sub_(problem.clean)
        .div_(scale)
    )
