"""How far an input can be moved at all."""

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem


def farthest(problem: AttackProblem) -> Tensor:
    """The distance of the farthest corner of the data's range from each clean input, `[A]`; infinite in an open one."""
    low, high = problem.bounds.low, problem.bounds.high
    return problem.distance(torch.where(problem.clean - low > high - problem.clean, low, high))
