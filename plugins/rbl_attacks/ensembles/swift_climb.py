"""The gradient search that swift is made of: sign or normalised steps whose size falls geometrically."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rbl_attacks.ensembles.swift_gaps import Gaps
from rbl_attacks.ensembles.swift_steps import direction, radius, step_size
from rbl_attacks.fixed_budget.apgd_steps import project_l1
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Objective

SMALLEST = 1e-12

Loss = Callable[..., Tensor]


def gap_scaled_cross_entropy(objective: Objective) -> Loss:
    """Cross-entropy of logits divided by the margin, `[B]`.

    The logits are scaled so that the true class leads by exactly 1, whatever their size: every class that is near
    counts, no gradient vanishes in float32, and multiplying all logits by a number changes nothing. Yu & Xu, "Efficient
    loss function by minimizing the detrimental effect of floating-point errors on gradient-based attacks", CVPR 2023
    (MIFPE), with t = 1.
    """

    def loss(logits: Tensor, goal: Tensor) -> Tensor:
        gap = objective.damage(logits.detach(), goal).abs().clamp_min(SMALLEST)
        return objective.loss("ce", logits / gap[:, None], goal)

    return loss


def lead_of_target(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """How far the logit of a class to aim at is above the label's, `[B]`."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, label[:, None])).squeeze(1)


def either(usual: Loss) -> Loss:
    """`lead_of_target` in rows that have a class to aim at, and the usual loss in those whose target is -1."""

    def loss(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
        return torch.where(target < 0, usual(logits, label), lead_of_target(logits, label, target.clamp_min(0)))

    return loss


def climb(
    problem: AttackProblem,
    x: Tensor,
    steps: int,
    loss: Loss,
    gaps: Gaps,
    given: Sequence[Tensor] = (),
    *,
    wide: bool = False,
) -> None:
    """Ascend from `x` in steps that become smaller and smaller.

    Broken samples drop out of `problem`; the margins reached go to `gaps`. steps + 1 forward and `steps` backward
    passes a sample. given: what `loss` needs beside logits and goal, `[A]`. wide: in l1 begin in a larger ball, whose
    points are no candidates.
    """
    problem.new_search(ascends=False)  # the gaps, and not the loss of one search, tell whether more is to be had
    reach = 1.0
    for step in range(steps):
        probe = problem.probe(x, loss, given=given, candidate=reach == 1)
        if reach == 1:
            gaps.saw(problem, probe.prediction)
        x, gradient, *given = problem.drop_done(x, probe.gradient, *given)
        if problem.finished:
            return
        progress = step / max(1, steps - 1)
        size = problem.eps * step_size(problem.norm, progress, steps)
        x = x.add(direction(problem, gradient, x, progress), alpha=size)
        reach = radius(problem.norm, progress) if wide else 1.0
        x = problem.project(x) if reach == 1 else project_l1(problem, x, reach * problem.eps)
    problem.submit(x)
    problem.drop_done()


def far_start(problem: AttackProblem, draw: str) -> Tensor:
    """A random point at the edge of the region: a corner of the box in linf, `[A, ...]`.

    Corners lie farther apart than points within the box, so searches from them end in more different places.
    """
    away = problem.steepest(problem.normal(draw), problem.clean)
    return problem.project(torch.add(problem.clean, away, alpha=problem.eps))
