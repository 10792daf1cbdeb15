"""sigma-zero (Cinà et al., ICLR 2025, https://arxiv.org/abs/2402.01879), Algorithm 1: sparse adversarial examples."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.adam import Adam
from rbl_attacks.minimum_norm.unit_gradient import per_sample
from rbl_attacks.minimum_norm.unit_scale import clip_, moved, unit
from robustbench_lab.attack_problem import AttackProblem

_FEWEST = 1
"""Changed values below which no sample that is right without attack can be broken."""


def sigma_zero(
    problem: AttackProblem,
    *,
    steps: Annotated[int, Field(ge=1)] = 1000,
    step_size: Annotated[float, Field(gt=0)] = 1.0,
    sigma: Annotated[float, Field(gt=0)] = 1e-3,
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.3,
    threshold_step: Annotated[float, Field(ge=0)] = 0.01,
) -> None:
    """Descent on the margin plus a smooth count of the changed values, where small changes are set to zero.

    The count of a change d is the sum of d**2 / (d**2 + sigma). Changes below a threshold become zero after each step;
    the threshold of a sample rises while it is adversarial and falls while it is not. Defaults are the authors'.

    steps: gradient steps.
    step_size: Adam's learning rate at the start, in units of the data's range; it falls to a tenth along a cosine.
    sigma: smoothness of the count, in squared units of the data's range; small values count sharply.
    threshold: the threshold at the start, in units of the data's range.
    threshold_step: change of the threshold in one step, as a share of the learning rate.
    """
    problem.new_search(ascends=False)
    change = torch.zeros_like(problem.clean)
    adam = Adam(change)
    limit = change.new_full((len(change),), threshold)
    for step in range(steps):
        probe = problem.probe(moved(problem, change), "margin")
        gradient, succeeded = probe.gradient, probe.succeeded
        unfinished = problem.nearest() > _FEWEST
        if not bool(unfinished.all()):
            index = unfinished.nonzero().squeeze(1)
            problem = problem.part(index)
            adam.keep(index)
            change, limit, gradient, succeeded = (one[index] for one in (change, limit, gradient, succeeded))
            if problem.finished:
                return
        rate = step_size * (0.1 + 0.9 * (1 + math.cos(math.pi * step / steps)) / 2)
        mean, size = adam.step(_unit_gradient(gradient.mul_(-unit(problem)), succeeded, change, sigma))
        clip_(problem, change.addcdiv_(mean, size, value=-rate))
        limit.add_(torch.where(succeeded, 1.0, -1.0), alpha=threshold_step * rate).clamp_(0, 1)
        change.masked_fill_(change.abs() < per_sample(limit, change), 0)
    problem.submit(moved(problem, change))


def _unit_gradient(of_margin: Tensor, succeeded: Tensor, change: Tensor, sigma: float) -> Tensor:
    """The gradient of the loss that is minimised (eq. 5), at largest entry 1, `[A, ...]`; overwrites `of_margin`.

    of_margin: that of the negative margin. It counts only where the sample is not adversarial.
    """
    smooth = change.square().add_(sigma)
    count = change.div(smooth.square_()).mul_(2 * sigma / math.prod(change.shape[1:]))
    gradient = of_margin.mul_(per_sample(~succeeded, change)).nan_to_num_(0, 0, 0).add_(count)
    largest = gradient.flatten(1).abs().amax(1).clamp_min_(1e-12)
    return gradient.div_(per_sample(largest, gradient))
