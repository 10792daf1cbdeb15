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
"""Times that the progress of a search without success is looked at."""
_PROGRESS = 0.9999
_FIRST = 6.0
"""The first constant, relative to the smallest that moves any value."""
_LARGEST = 1e10
_GROWTH = 4.0
_AROUND = (2.0, 0.5, 4.0, 1.4, 2.8, 0.7)
"""Further constants, relative to the first that breaks a sample: those that gain most first."""


def ead(
    problem: AttackProblem,
    *,
    searches: Count = 9,
    around: Annotated[int, Field(ge=0, le=len(_AROUND))] = 2,
    steps: Count = 300,
    step_size: Above0 = 0.01,
    regularization: Annotated[float, Field(ge=0)] = 0.01,
    abort_early: bool = True,
    final_search: Passes = 10,
) -> None:
    """Searches for small changes in l1 and l2 at once, with a constant c for each sample that weights the margin.

    Minimised is c * max(0, -margin) + regularization * l1 + l2**2. Of all successes the nearest in l1 is kept, the
    paper's L1 decision rule. Unlike published implementations it passes over constants too small to move any value,
    takes the extrapolated point (within the bounds) for the candidate, which saves a pass a step, decides for each
    sample by itself when a search is hopeless, and does not bisect c: the nearest success comes late in a search and
    seldom with the smallest c that leads to one, so c grows until it does, and then others around it are tried.

    searches: constants c that are tried for each sample at most.
    around: how many of them around the first that breaks the sample: 2, 1/2, 4, 1.4, 2.8 and 0.7 times it.
    steps: gradient steps of one search at most; 1000 in the paper.
    step_size: at the start of a search, in units of the data's range; it falls to 0 with the square root.
    regularization: how much every change shrinks in a step, in units of the data's range; as in the authors' code
        whatever the step size.
    abort_early: while a sample is not broken, end its search where a tenth of the steps brought no progress.
    final_search: forward passes at the end, of a bisection between the clean and the nearest adversarial input; not
        in the paper.
    """
    everyone = problem
    const = _first_const(problem, step_size, regularization)
    successes = torch.zeros_like(const, dtype=torch.int64)
    factors = const.new_tensor((1.0, *_AROUND, math.nan))
    for _ in range(searches):
        problem.new_search(ascends=False)
        _search(problem, const, steps, step_size, regularization, abort_early=abort_early)
        found = problem.found()
        const = torch.where(found, const * factors[successes + 1] / factors[successes], _GROWTH * const)
        successes += found
        index = ((successes <= around) & (const < _LARGEST)).nonzero().squeeze(1)
        problem, const, successes = problem.part(index), const[index], successes[index]
        if problem.finished:
            break
    shorten(everyone, final_search)


def _first_const(problem: AttackProblem, step_size: float, regularization: float) -> Tensor:
    """A few times the constant below which the first step shrinks to nothing, `[A]`."""
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
) -> None:
    """One search with the constants `const` `[A]`."""
    point = ahead = torch.zeros_like(problem.clean)
    cost_before = torch.full_like(const, math.inf)
    every = math.ceil(steps / _CHECKS)
    for step in range(steps):
        missed, gradient = problem.loss_and_gradient(moved(problem, ahead), "margin")
        missed = missed.neg().clamp_min_(0).nan_to_num_(0)
        if abort_early and step and step % every == 0:
            flat = ahead.flatten(1)
            cost = const * missed + regularization * flat.abs().sum(1) + flat.square().sum(1)
            index = (problem.found() | (cost <= _PROGRESS * cost_before)).nonzero().squeeze(1)
            problem, const, cost_before = problem.part(index), const[index], cost[index]
            point, ahead, gradient, missed = (one[index] for one in (point, ahead, gradient, missed))
            if problem.finished:
                return
        rate = step_size * math.sqrt(1 - step / steps)
        gradient = gradient.nan_to_num_(0, 0, 0).mul_(per_sample(-const * (missed > 0) * unit(problem), gradient))
        target = gradient.add_(ahead, alpha=2).mul_(-rate).add_(ahead)
        before, point = point, clip_(problem, _shrunk(target, regularization))
        ahead = clip_(problem, torch.lerp(before, point, 1 + step / (step + 3)))
    problem.succeeded(moved(problem, point))


def _shrunk(change: Tensor, threshold: float) -> Tensor:
    return (change.abs() - threshold).clamp_min_(0).copysign_(change)
