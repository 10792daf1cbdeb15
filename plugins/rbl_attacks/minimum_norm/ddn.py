"""Decoupled direction and norm (Rony et al., CVPR 2019, https://arxiv.org/abs/1811.09600), Algorithm 1."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.farthest import farthest
from rbl_attacks.minimum_norm.unit_gradient import per_sample, unit_gradient
from rbl_attacks.minimum_norm.unit_scale import unit
from robustbench_lab.attack_problem import AttackProblem

_FINAL_STEP = 0.01
"""The last step relative to the first."""
_BRACKETING = 2.0

Share = Annotated[float, Field(gt=0, lt=1)]


def ddn(
    problem: AttackProblem,
    *,
    steps: Annotated[int, Field(ge=1)] = 100,
    gamma: Share = 0.1,
    final_gamma: Share = 0.001,
    init_norm: Annotated[float, Field(gt=0)] = 1.0,
    loss: str | None = None,
) -> None:
    """Steps along the gradient, each put back on a sphere that shrinks after a success and grows after a failure.

    Two things differ from the paper, and find nearer inputs in the same number of steps: the share by which the radius
    changes falls along a cosine (there it stays 0.05), and until a sample has both succeeded and failed its radius
    halves or doubles, so that the result does not hang on the first radius. The step's length is a share of the radius
    that falls from 1 to 0.01, as in the paper for a radius of 1.

    steps: gradient steps.
    gamma: share by which the radius changes in the first step.
    final_gamma: the same in the last step.
    init_norm: the first radius, in units of the data's range.
    loss: one of the objective's losses; None: its usual one.
    """
    problem.new_search()
    clean, limit = problem.clean, farthest(problem)
    radius = torch.full_like(limit, init_norm * unit(problem)).minimum(limit)
    succeeded_once = torch.zeros_like(limit, dtype=torch.bool)
    failed_once = torch.zeros_like(succeeded_once)
    x = clean.clone()
    for step in range(steps):
        falling = (1 + math.cos(math.pi * step / steps)) / 2
        probe = problem.probe(x, loss)
        if step > 0:  # the clean input tells nothing about the first radius
            succeeded_once |= probe.succeeded
            failed_once |= ~probe.succeeded
            share = final_gamma + (gamma - final_gamma) * falling
            radius = _next_radius(radius, probe.succeeded, succeeded_once & failed_once, share).minimum(limit)
        direction = unit_gradient(problem, probe.gradient, f"direction/{step}")
        length = radius * (_FINAL_STEP + (1 - _FINAL_STEP) * falling)
        x.sub_(clean).addcmul_(direction, per_sample(length, x))
        norm = torch.linalg.vector_norm(x.flatten(1), dim=1).clamp_min_(1e-30)
        x.mul_(per_sample(radius / norm, x)).add_(clean).clamp_(problem.bounds.low, problem.bounds.high)
    problem.submit(x)


def _next_radius(radius: Tensor, succeeded: Tensor, bracketed: Tensor, share: float) -> Tensor:
    """Smaller after a success, larger after a failure, `[A]`."""
    fine = torch.where(succeeded, 1 - share, 1 + share)
    coarse = torch.where(succeeded, 1 / _BRACKETING, _BRACKETING)
    return radius * torch.where(bracketed, fine, coarse)
