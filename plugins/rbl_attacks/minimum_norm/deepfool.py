"""DeepFool (Moosavi-Dezfooli, Fawzi & Frossard 2016, https://arxiv.org/abs/1511.04599), in l2 and linf.

Algorithm 2, with the changes that all implementations have (the authors', Foolbox 3): the few most likely classes
only, and the model is asked at the point with the overshoot.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.nearest_boundary import nearest_boundary, rivals_by_rank
from robustbench_lab.attack_problem import AttackProblem

_LEAST_STEP = 1e-6
"""Takes a sample off a boundary that it lies on."""
_FAR = 1e30


def deepfool(
    problem: AttackProblem,
    *,
    steps: Annotated[int, Field(ge=1)] = 50,
    candidates: Annotated[int, Field(ge=2)] = 10,
    overshoot: Annotated[float, Field(ge=0)] = 0.02,
) -> None:
    """Shortest steps to the nearest boundary of the linearised model, until the sample is beyond it.

    steps: at most; a sample that is beyond the boundary takes no more of them, and no more passes.
    candidates: how many of the most likely classes to look at, the true one among them; a backward pass for each of
        the others.
    overshoot: the sum of the steps is lengthened by this share.
    """
    if problem.finished:
        return
    part = problem
    rivals = rivals_by_rank(problem)[:, : candidates - 1]
    x, total = problem.clean, torch.zeros_like(problem.clean)
    for _ in range(steps):
        lead, gradient = nearest_boundary(part, x, rivals, candidate=False)
        total += _step(part, x, lead, gradient)
        x = (part.clean + (1 + overshoot) * total).clamp_(problem.bounds.low, problem.bounds.high)
        left = (~part.succeeded(x)).nonzero().squeeze(1)
        if len(left) == 0:
            return
        if len(left) < len(x):
            part = part.part(left)
            x, total, rivals = (one.index_select(0, left) for one in (x, total, rivals))


def _step(problem: AttackProblem, x: Tensor, lead: Tensor, gradient: Tensor) -> Tensor:
    """The shortest way to the plane on which the linearised lead is zero; none where the gradient is not finite."""
    gradient = gradient.nan_to_num_(0, 0, 0)
    direction = problem.steepest(gradient.clone(), x)
    slope = torch.linalg.vecdot(gradient.flatten(1), direction.flatten(1))
    length = (lead.abs() / slope).nan_to_num_(0, 0, 0).clamp_(_LEAST_STEP, _FAR)
    return direction.mul_(length.reshape(-1, *(1,) * (x.ndim - 1)))
