"""Auto-PGD (Croce & Hein, ICML 2020, https://arxiv.org/abs/2003.01690): PGD that sets its own step size.

In l1 the variant of Croce & Hein, "Mind the box", ICML 2021, https://arxiv.org/abs/2103.01208. The numbers are those of
the official code, https://github.com/fra31/auto-attack, autoattack/autopgd_base.py.

One thing differs: a coordinate that is put back in l1 is exactly the clean one here. There rounding often leaves it
counted as changed, and the first steps are less sparse.
"""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.fixed_budget.apgd_steps import (
    Iterate,
    MomentumSteps,
    Query,
    SparseSteps,
    Steps,
    drop_done,
    project_l1,
    project_times,
)
from rbl_attacks.minimum_norm.nearest_boundary import columns, rivals_by_rank, side_by_side
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Untargeted, targeted_difference_of_logits_ratio, targeted_margin
from robustbench_lab.passes.model_queries import Loss

Count = Annotated[int, Field(ge=1)]
RHO = 0.75
"""Share of the steps since a checkpoint that must raise the loss (section 3.3)."""
TARGETED_LOSSES = {"targeted-dlr": targeted_difference_of_logits_ratio, "targeted-cw": targeted_margin}


def apgd(
    problem: AttackProblem,
    *,
    steps: Count = 100,
    restarts: Count = 1,
    loss: str | None = None,
    rho: Annotated[float, Field(ge=0, le=1)] = RHO,
    targets: Count = 9,
    multi_eps: bool = True,
) -> None:
    """Projected ascent with momentum, whose step size is halved where the loss stops rising.

    steps: gradient steps of one search.
    restarts: searches from different random starts; only samples still unbroken enter the next one.
    loss: one of the objective's losses (for classifiers `ce`, `dlr` or `cw`), or `targeted-dlr` or `targeted-cw`: these
        aim at the likeliest wrong classes of the clean input in turn. None: the objective's usual one.
    rho: share of the steps since the last checkpoint that must raise the loss; otherwise the step size is halved.
    targets: for the targeted losses, how many classes to aim at; all the wrong ones where there are fewer.
    multi_eps: l1 only: three tenths of the steps in a ball of 3 times the budget, three tenths in one of 2 times it.
    """
    if problem.finished:
        return
    ranked, towards = _aims(problem, loss, targets)
    for aims in side_by_side(problem, ranked.shape[1]):
        for restart in range(restarts):
            several, aimed = problem.repeated(len(aims)), columns(ranked, aims)
            query = partial(several.loss_and_gradient, loss=towards)
            draws = [f"apgd/{loss}/{aim}/{restart}" for aim in aims]
            noise = torch.cat([_noise(problem, draw) for draw in draws])
            if problem.norm == "l1":
                _sparse_search(several, query, aimed, noise, steps, multi_eps=multi_eps)
            else:
                _momentum_search(several, query, aimed, noise, steps, rho)
            (ranked,) = problem.drop_done(ranked)
            if problem.finished:
                return


def _aims(problem: AttackProblem, loss: str | None, targets: int) -> tuple[Tensor, Loss]:
    """Wrong classes, likeliest first, int64 `[A, M]`, and the loss towards one; without targets one column of zeros."""
    if loss not in TARGETED_LOSSES:
        return problem.open_positions.new_zeros(problem.open_samples, 1), loss
    if not isinstance(problem.objective, Untargeted):
        raise SkipCell(f"the loss {loss} chooses its own targets: use the untargeted objective, or loss='ce'")
    return rivals_by_rank(problem)[:, :targets], partial(_towards, loss=loss)


def _towards(logits: Tensor, label: Tensor, aimed: Tensor, *, loss: str) -> Tensor:
    return TARGETED_LOSSES[loss](logits, label, aimed.squeeze(1))


def _noise(problem: AttackProblem, draw: str) -> Tensor:
    """From the clean inputs to the start: in l1 normal, otherwise at distance `eps`."""
    if problem.norm == "l1":
        return problem.normal(draw)
    noise = problem.uniform(draw).mul_(2).sub_(1) if problem.norm == "linf" else problem.normal(draw)
    order = torch.inf if problem.norm == "linf" else 2
    length = torch.linalg.vector_norm(noise.flatten(1), ord=order, dim=1).add_(1e-12)
    return noise.mul_((problem.eps / length).view(-1, *[1] * (noise.ndim - 1))).mul_(problem.unit)


def _momentum_search(
    problem: AttackProblem, query: Query, aimed: Tensor, noise: Tensor, steps: int, rho: float
) -> None:
    """One search in linf or l2, from a random point at distance `eps` before it is clipped to the bounds."""
    problem.new_search()
    x = problem.project(problem.clean + noise)
    at = Iterate.start(query, x, aimed)
    rule = MomentumSteps.start(problem, at, steps, rho)
    drop_done(problem, at, rule)
    _climb_to_the_end(problem, query, at, rule, steps)


def apgd_from_larger_balls(problem: AttackProblem, *, steps: int, loss: str) -> None:
    """One search in linf or l2 that begins outside the budget (Croce et al. 2024).

    Three tenths of the steps in a ball of twice the budget, three tenths in one of 1.5 times it, the rest within it;
    each goes on from the best point of the one before, as in the authors' code (linf alone there):
    https://github.com/nmndeep/Robust-Segmentation, semseg/attacker.py, apgd_largereps.
    """
    query = partial(problem.loss_and_gradient, loss=loss)
    aimed = problem.open_positions.new_zeros(problem.open_samples, 1)
    early, x = int(0.3 * steps), problem.clean + 2 * _noise(problem, f"apgd/{loss}/0/0")
    outside = partial(query, candidate=False)
    for times in (2.0, 1.5) if early else ():
        problem.new_search(ascends=False)
        at = Iterate.start(outside, project_times(problem, x, times), aimed)
        _climb(problem, outside, at, MomentumSteps.start(problem, at, early, RHO, times), early)
        x = at.best_x
    problem.new_search()
    at = Iterate.start(query, problem.project(x), aimed)
    rule = MomentumSteps.start(problem, at, steps - 2 * early, RHO)
    drop_done(problem, at, rule)
    _climb_to_the_end(problem, query, at, rule, steps - 2 * early)


def _sparse_search(
    problem: AttackProblem, query: Query, aimed: Tensor, noise: Tensor, steps: int, *, multi_eps: bool
) -> None:
    """One search in l1, from a random point of the ball."""
    x = problem.clean + noise
    early = min(ceil(0.3 * steps), (steps - 1) // 2) if multi_eps else 0
    for radius in (3, 2) if early else ():
        problem.new_search(ascends=False)
        x = project_l1(problem, x, radius * problem.eps)
        at = Iterate.start(partial(query, candidate=False), x, aimed)
        rule = SparseSteps.start(problem, at, radius * problem.eps, early, warm=True)
        _climb(problem, partial(query, candidate=False), at, rule, early)
        x = at.best_x
    problem.new_search()
    at = Iterate.start(query, project_l1(problem, x, problem.eps), aimed)
    rule = SparseSteps.start(problem, at, problem.eps, steps - 2 * early, warm=early > 0)
    drop_done(problem, at, rule)
    _climb_to_the_end(problem, query, at, rule, steps - 2 * early)


def _climb_to_the_end(problem: AttackProblem, query: Query, at: Iterate, rule: Steps, steps: int) -> None:
    """All steps; the last point needs no gradient."""
    _climb(problem, query, at, rule, steps - 1)
    if not problem.finished:
        problem.submit(rule.move(problem, at))
        problem.drop_done()


def _climb(problem: AttackProblem, query: Query, at: Iterate, rule: Steps, steps: int) -> None:
    for step in range(1, steps + 1):
        if problem.finished:
            return
        x = rule.move(problem, at)
        at.previous, at.x = at.x, x
        at.loss, at.gradient = query(x, given=(at.aimed,), out=at.gradient)
        drop_done(problem, at, rule)
        at.keep_best()
        back = rule.adapt(problem, at, step)
        if back is not None:
            at.go_back(back)
