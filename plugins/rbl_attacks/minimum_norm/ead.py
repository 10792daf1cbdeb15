"""EAD, the elastic-net attack (Chen et al., AAAI 2018, https://arxiv.org/abs/1709.04114), Algorithm 1 (FISTA)."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.shorten import shorten
from rbl_attacks.minimum_norm.unit_gradient import per_sample
from rbl_attacks.minimum_norm.unit_scale import clip_, moved, unit
from robustbench_lab.attack_problem import AttackProblem

Count = Annotated[int, Field(ge=1)]
Passes = Annotated[int, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]

_CHECKS = 10
"""Times that the progress of one search is looked at."""
_PROGRESS = 0.9999
_FIRST = 3.0
"""The first constant, relative to the smallest that moves any value."""
_LARGEST = 1e10
_GROWTH = 4.0
_BRACKET = 3.0
"""A sample is finished when its constant is known to this factor."""


def ead(
    problem: AttackProblem,
    *,
    binary_search_steps: Count = 9,
    steps: Count = 300,
    step_size: Above0 = 0.01,
    regularization: Annotated[float, Field(ge=0)] = 0.01,
    abort_early: bool = True,
    final_search: Passes = 10,
) -> None:
    """Searches for small changes in l1 and l2 at once, with a constant c for each sample that weights the margin.

    Minimised is c * max(0, -margin) + regularization * l1 + l2**2. Where a search does not break a sample, c grows;
    otherwise it is bisected. Of all successes the nearest in l1 is kept, the paper's L1 decision rule. Unlike published
    implementations it passes over constants too small to move any value, takes the extrapolated point (within the
    bounds) for the candidate, which saves a pass a step, ends when c is known to a factor of 3, and decides for each
    sample by itself when a search is hopeless.

    binary_search_steps: constants c that are tried for each sample at most.
    steps: gradient steps of one search at most; 1000 in the paper.
    step_size: at the start of a search, in units of the data's range; it falls to 0 with the square root.
    regularization: how much every change shrinks in a step, in units of the data's range; as in the authors' code
        whatever the step size.
    abort_early: end a search where a tenth of the steps brought no progress, and in its second half one that has broken
        its sample where they brought that no nearer.
    final_search: forward passes at the end, of a bisection between the clean and the nearest adversarial input; not
        in the paper.
    """
    everyone = problem
    const = _first_const(problem, step_size, regularization)
    low, high = torch.zeros_like(const), torch.full_like(const, math.inf)
    for _ in range(binary_search_steps):
        problem.new_search(ascends=False)
        broken = _search(problem, const, steps, step_size, regularization, abort_early=abort_early)
        low, high = torch.where(broken, low, const), torch.where(broken, const, high)
        const = torch.where(high.isinf(), _GROWTH * const, (low + high) / 2)
        index = ((high > _BRACKET * low) & (const < _LARGEST)).nonzero().squeeze(1)
        problem, const, low, high = problem.part(index), const[index], low[index], high[index]
        if problem.finished:
            break
    shorten(everyone, final_search)


def _first_const(problem: AttackProblem, step_size: float, regularization: float) -> Tensor:
    """Three times the constant below which the first step shrinks to nothing, `[A]`."""
    problem.new_search(ascends=False)
    _, gradient = problem.loss_and_gradient(problem.clean, "margin")
    largest = gradient.nan_to_num_(0, 0, 0).flatten(1).abs().amax(1) * unit(problem)
    smallest = max(regularization, 1e-6) / (step_size * largest)
    return (_FIRST * smallest).clamp_(max=_LARGEST)


def _search(
    problem: AttackProblem,
    const: Tensor,
    steps: int,
    step_size: float,
    regularization: float,
    *,
    abort_early: bool,
) -> Tensor:
    """One search with the constants `const` `[A]`; whether it broke each sample, bool `[A]`."""
    broken = torch.zeros_like(const, dtype=torch.bool)
    rows = torch.arange(len(const), device=const.device)
    point = ahead = torch.zeros_like(problem.clean)
    cost_before = distance_before = torch.full_like(const, math.inf)
    every = math.ceil(steps / _CHECKS)
    for step in range(steps):
        probe = problem.probe(moved(problem, ahead), "margin")
        broken[rows] |= probe.succeeded
        gradient, missed = probe.gradient, (-probe.loss).clamp_min_(0).nan_to_num_(0)
        if abort_early and step and step % every == 0:
            flat = ahead.flatten(1)
            cost = const * missed + regularization * flat.abs().sum(1) + flat.square().sum(1)
            distance = problem.nearest()
            comes_nearer = (distance < distance_before) | (2 * step < steps)
            index = ((cost <= _PROGRESS * cost_before) | (broken[rows] & comes_nearer)).nonzero().squeeze(1)
            problem, rows, const = problem.part(index), rows[index], const[index]
            cost_before, distance_before = cost[index], distance[index]
            point, ahead, gradient, missed = (one[index] for one in (point, ahead, gradient, missed))
            if problem.finished:
                break
        rate = step_size * math.sqrt(1 - step / steps)
        gradient = gradient.nan_to_num_(0, 0, 0).mul_(per_sample(-const * (missed > 0) * unit(problem), gradient))
        target = gradient.add_(ahead, alpha=2).mul_(-rate).add_(ahead)
        before, point = point, clip_(problem, _shrunk(target, regularization))
        ahead = clip_(problem, torch.lerp(before, point, 1 + step / (step + 3)))
    if not problem.finished:
        broken[rows] |= problem.succeeded(moved(problem, point))
    return broken


def _shrunk(change: Tensor, threshold: float) -> Tensor:
    return (change.abs() - threshold).clamp_min_(0).copysign_(change)
