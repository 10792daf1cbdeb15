"""The last part of the way to the boundary: a bisection between the clean and the nearest adversarial input."""

import torch

from rbl_attacks.minimum_norm.unit_gradient import per_sample
from robustbench_lab.attack_problem import AttackProblem


def shorten(problem: AttackProblem, passes: int) -> None:
    """Candidates on the line from the clean input to the nearest success known, for samples that have one.

    passes: forward passes for each sample; the way is known to 2**-passes of its length afterwards.
    """
    problem = problem.part(problem.found().nonzero().squeeze(1))
    if problem.finished:
        return
    nearest = problem.best()
    low, high = nearest.new_zeros(len(nearest)), nearest.new_ones(len(nearest))
    for _ in range(passes):
        middle = (low + high) / 2
        succeeded = problem.succeeded(torch.lerp(problem.clean, nearest, per_sample(middle, nearest)))
        low, high = torch.where(succeeded, low, middle), torch.where(succeeded, middle, high)
