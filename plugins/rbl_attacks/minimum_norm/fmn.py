"""Fast minimum-norm attack (Pintor et al., NeurIPS 2021, https://arxiv.org/abs/2102.12827), Algorithm 1."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.farthest import farthest
from rbl_attacks.minimum_norm.projections import PROJECTIONS
from rbl_attacks.minimum_norm.unit_gradient import unit_gradient
from rbl_attacks.minimum_norm.unit_scale import unit
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.passes.model_queries import Probe

_DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}
_FINAL_STEP = 0.01
"""The last step relative to the first, as in the authors' code."""

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


def fmn(
    problem: AttackProblem,
    *,
    steps: Annotated[int, Field(ge=1)] = 100,
    step_size: Positive | None = None,
    gamma: Share = 0.05,
    final_gamma: Share = 0.001,
) -> None:
    """Steps along the margin's gradient, projected to a ball that shrinks after a success and grows after a failure.

    Until a sample has succeeded, the radius is its distance to the boundary by the margin's slope, a little enlarged:
    on a linear model the point would otherwise lie on the boundary itself, and never beyond. The projections in l1 and
    l0 heed the range of the data, which the authors' code leaves to a clipping afterwards.

    steps: gradient steps.
    step_size: Euclidean length of the first step, in units of the data's range; it falls to a hundredth along a cosine.
        None: 1, and 10 in l0, where the size of a change costs nothing.
    gamma: share by which the radius changes in the first step.
    final_gamma: the same in the last step; it falls along a cosine.
    """
    if problem.norm not in PROJECTIONS:
        raise SkipCell(f"fmn works in {', '.join(PROJECTIONS)}, not in {problem.norm}")
    problem.new_search()
    project, clean = PROJECTIONS[problem.norm], problem.clean.flatten(1)
    lowest, highest, limit = problem.bounds.low - clean, problem.bounds.high - clean, farthest(problem)
    first = (step_size or (10.0 if problem.norm == "l0" else 1.0)) * unit(problem)
    radius = torch.ones_like(limit)
    x = problem.clean.clone()
    for step in range(steps):
        falling = (1 + math.cos(math.pi * step / steps)) / 2
        probe = problem.probe(x, "margin")
        radius = _next_radius(problem, radius, x, probe, final_gamma + (gamma - final_gamma) * falling).minimum(limit)
        direction = unit_gradient(problem, probe.gradient, f"direction/{step}")
        x.sub_(problem.clean).add_(direction, alpha=first * (_FINAL_STEP + (1 - _FINAL_STEP) * falling))
        change = project(x.flatten(1), radius[:, None], lowest, highest)
        x = change.add_(clean).clamp_(problem.bounds.low, problem.bounds.high).view_as(x)
    problem.submit(x)


def _next_radius(problem: AttackProblem, radius: Tensor, x: Tensor, probe: Probe, share: float) -> Tensor:
    """Smaller after a success, larger after a failure, `[A]`."""
    nearest = problem.nearest()
    if problem.norm == "l0":
        fewer = torch.minimum(radius - 1, (radius * (1 - share)).floor()).minimum(nearest)
        more = torch.maximum(radius + 1, (radius * (1 + share)).floor())
        return torch.where(probe.succeeded, fewer, more).clamp_min_(1)
    smaller = (radius * (1 - share)).minimum(nearest)
    larger = radius * (1 + share)
    found = nearest.isfinite()
    if not bool(found.all()):
        larger = torch.where(found, larger, _to_boundary(problem, x, probe) * (1 + share))
    return torch.where(probe.succeeded, smaller, larger)


def _to_boundary(problem: AttackProblem, x: Tensor, probe: Probe) -> Tensor:
    """Distance of the boundary from the clean input, as the margin's slope at `x` has it, `[A]`; may be infinite."""
    assert problem.norm is not None  # noqa: S101 (it is a norm that has a dual)
    slope = torch.linalg.vector_norm(probe.gradient.flatten(1), ord=_DUAL[problem.norm], dim=1)
    return (problem.distance(x) + probe.loss.abs() / slope).nan_to_num_(math.inf)
