"""Fast adaptive boundary attack (Croce & Hein 2020, https://arxiv.org/abs/1907.02044), in linf, l2 and l1.

Algorithm 1 as it runs within AutoAttack (autoattack/fab_base.py, fab_pt.py). Each step takes the boundary between the
true class and another one as a hyperplane, steps to it both from the current point and from the clean input, and goes
on from a point between the two; a point beyond the boundary is pulled back towards the clean input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.hyperplane_projection import HYPERPLANES
from rbl_attacks.minimum_norm.nearest_boundary import columns, nearest_boundary, rivals_by_rank, side_by_side
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds

Count = Annotated[int, Field(ge=1)]
Passes = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Overshoot = Annotated[float, Field(ge=1)]
_COORDINATES_AT_ONCE = {"cpu": 1 << 17}
"""Of the samples that make a step together, by kind of device: on a CPU the temporaries stay in its cache."""
_COORDINATES_ELSEWHERE = 1 << 22


def fab(
    problem: AttackProblem,
    *,
    steps: Count = 100,
    restarts: Count = 1,
    targets: Count | None = None,
    alpha_max: Share = 0.1,
    eta: Overshoot = 1.05,
    beta: Share = 0.9,
    final_search: Passes = 10,
) -> None:
    """Along the decision boundary, towards the clean input.

    steps: linearisations of one search.
    restarts: searches for the same boundary, from the second on from a random point.
    targets: search for the boundaries to so many classes in turn, the most likely first (FAB-T); None: at each step
        for the one that is nearest by the gradients of all classes, a backward pass for each. Under a targeted
        objective there is one boundary, and this has no effect.
    alpha_max: largest weight of the step that starts at the clean input.
    eta: how far to step, with the way to the hyperplane as 1.
    beta: share of the change that is kept where it succeeded.
    final_search: in minimum-norm problems, forward passes of a search on the line between the clean and the nearest
        adversarial input; the paper has one of 3, AutoAttack none.
    """
    if problem.finished:
        return
    pace = _Pace(steps, alpha_max, eta, beta)
    rivals = rivals_by_rank(problem)[:, :targets]
    for aims in side_by_side(problem, 1 if targets is None else rivals.shape[1]):
        several = problem.repeated(len(aims))
        aimed = rivals if targets is None else columns(rivals, aims)
        x = several.clean.clone(memory_format=torch.contiguous_format)
        for restart in range(restarts):
            if restart:
                x = _random_start(several, torch.cat([_direction(problem, aim, restart) for aim in aims]), x)
            x, aimed = _search(several, x, aimed, pace)
            (rivals,) = problem.drop_done(rivals)
            if problem.finished:
                return
    if problem.minimum_norm and final_search:
        _shorten(problem, final_search)


def fab_t(
    problem: AttackProblem,
    *,
    steps: Count = 100,
    restarts: Count = 1,
    targets: Count = 9,
    alpha_max: Share = 0.1,
    eta: Overshoot = 1.05,
    beta: Share = 0.9,
    final_search: Passes = 10,
) -> None:
    """`fab` for one class at a time; its parameters are explained there."""
    fab(
        problem,
        steps=steps,
        restarts=restarts,
        targets=targets,
        alpha_max=alpha_max,
        eta=eta,
        beta=beta,
        final_search=final_search,
    )


@dataclass(frozen=True)
class _Pace:
    steps: int
    alpha_max: float
    eta: float
    beta: float


def _search(problem: AttackProblem, x: Tensor, rivals: Tensor, pace: _Pace) -> tuple[Tensor, Tensor]:
    """One search from `x`, which it overwrites; where it has led, and `rivals`, for the samples still open.

    Each step takes a forward and a backward pass for the hyperplane, and a forward pass to see where it has led.
    """
    problem.new_search(ascends=False)
    reached = problem.distance(x)
    gradient = None
    for _ in range(pace.steps):
        inside = reached <= problem.eps
        lead, gradient = nearest_boundary(problem, x, rivals, candidate=inside, out=gradient)
        x, rivals, lead, gradient = problem.drop_done(x, rivals, lead, gradient)
        if problem.finished:
            break
        reached = _step(problem, x, lead, gradient, pace)
        succeeded = problem.succeeded(x, candidate=reached <= problem.eps)
        x, rivals, reached, succeeded = problem.drop_done(x, rivals, reached, succeeded)
        if problem.finished:
            break
        kept = torch.where(succeeded, pace.beta, 1.0)
        torch.lerp(problem.clean, x, _per_sample(kept, x), out=x)
        reached = reached * kept
    return x, rivals


def _step(problem: AttackProblem, x: Tensor, lead: Tensor, gradient: Tensor, pace: _Pace) -> Tensor:
    """Moves `x` in place; the distances from the clean inputs it then has, `[A]`."""
    rows = max(1, _COORDINATES_AT_ONCE.get(x.device.type, _COORDINATES_ELSEWHERE) // max(1, x[:1].numel()))
    clean, point, weight = problem.clean.flatten(1), x.view(len(x), -1), gradient.flatten(1)
    return torch.cat(
        [
            _step_part(str(problem.norm), problem.bounds, *part, pace)
            for part in zip(*(one.split(rows) for one in (clean, point, lead, weight)), strict=True)
        ]
    )


def _step_part(
    norm: str, bounds: Bounds, clean: Tensor, x: Tensor, lead: Tensor, weight: Tensor, pace: _Pace
) -> Tensor:
    lead_at_clean = lead + (clean - x).mul_(weight).sum(1)
    plane = HYPERPLANES[norm](weight, bounds)
    (size, against), (clean_size, clean_against) = plane.step_from(x, lead), plane.step_from(clean, lead_at_clean)
    way, clean_way = (_length(one, norm).clamp_min_(1e-8) for one in (size, clean_size))
    alpha = (way / (way + clean_way)).clamp_max_(pace.alpha_max)
    end = torch.addcmul(x, size, against, value=-pace.eta, out=size)
    clean_end = torch.addcmul(clean, clean_size, clean_against, value=-pace.eta, out=clean_size)
    torch.lerp(end, clean_end, alpha[:, None], out=x).clamp_(bounds.low, bounds.high)
    return _length(x - clean, norm)


def _direction(problem: AttackProblem, aim: int, restart: int) -> Tensor:
    draw = f"start/{aim}/{restart}"
    return 2 * problem.uniform(draw) - 1 if problem.norm == "linf" else problem.normal(draw)


def _random_start(problem: AttackProblem, direction: Tensor, last: Tensor) -> Tensor:
    """A random point at half the radius: the budget, or the nearest success so far.

    direction: of any length; it is overwritten. last: where the last search has led, `[A, ...]`; its distance is the
    radius where there is neither.
    """
    reached = problem.distance(last)
    radius = problem.nearest() if problem.minimum_norm else torch.full_like(reached, problem.eps)
    radius = torch.where(radius.isfinite(), radius, reached)
    size = _length(direction.flatten(1), str(problem.norm)).clamp_min_(1e-12)
    x = problem.clean + direction.mul_(_per_sample(radius / size / 2, direction))
    return x.clamp_(problem.bounds.low, problem.bounds.high).contiguous()


def _shorten(problem: AttackProblem, passes: int) -> None:
    """Candidates on the line from the clean input to the nearest success: secant and bisection steps in turn."""
    found = problem.found().nonzero().squeeze(1)
    part = problem.part(found)
    clean, nearest = part.clean, part.best()
    low, high = clean.new_zeros(len(found)), clean.new_ones(len(found))
    low_margin, high_margin = (part.loss(end, "margin", candidate=False) for end in (clean, nearest))
    for turn in range(passes):
        # A little beyond the estimate, for it to succeed.
        secant = (-low_margin / (high_margin - low_margin)).nan_to_num(0.5).clamp(0, 1) * 0.999 + 0.001
        share = low + (high - low) * (0.5 if turn % 2 else secant)
        x = torch.lerp(clean, nearest, _per_sample(share, clean)).clamp_(part.bounds.low, part.bounds.high)
        margin = part.loss(x, "margin")
        beyond = margin > 0
        low, low_margin = torch.where(beyond, low, share), torch.where(beyond, low_margin, margin)
        high, high_margin = torch.where(beyond, share, high), torch.where(beyond, margin, high_margin)


def _length(step: Tensor, norm: str) -> Tensor:
    """The norm of each row, `[n]`."""
    if norm == "linf":
        lowest, highest = step.amin(1), step.amax(1)
        return torch.maximum(highest, lowest.neg_())
    return torch.linalg.vector_norm(step, ord=int(norm[1:]), dim=1)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))
