"""The decision boundary as a hyperplane, which is what FAB and DeepFool step to; the nearest, of several classes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Targeted
from robustbench_lab.problem_parts.problem_setting import Candidate

_NUMBERS_AT_ONCE = 1 << 25
"""Bounds the memory of the gradients of all classes; those of one sample are always held together."""
_DUAL_ORDER = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}


def rivals_by_rank(problem: AttackProblem) -> Tensor:
    """The classes that a sample may be taken for, the most likely for the clean input first, int64 `[A, K - 1]`.

    All but the true one, by a forward pass; under a targeted objective the goal alone, `[A, 1]`. Raises SkipCell where
    the model has one class only.
    """
    if isinstance(problem.objective, Targeted):
        goal: Tensor = problem.goal
        return goal[:, None]
    logits = problem.logits(problem.clean, candidate=False).nan_to_num(float("-inf"))
    if logits.shape[1] < 2:
        raise SkipCell("the model has one class only: there is no boundary to another one")
    own_first = logits.scatter(1, problem.goal[:, None], float("inf"))
    return own_first.argsort(dim=1, descending=True, stable=True)[:, 1:]


def side_by_side(problem: AttackProblem, aims: int) -> Iterator[range]:
    """Searches, one for each aim, in groups for `AttackProblem.repeated`.

    The first alone, since it breaks the most samples; of the others as many at once as fill a batch.
    """
    start = 0
    while start < aims:
        stop = min(aims, start + (problem.searches_at_once if start else 1))
        yield range(start, stop)
        start = stop


def columns(rivals: Tensor, aims: range) -> Tensor:
    """The rivals of some ranks, `[len(aims) * A, 1]`, in the order of `AttackProblem.repeated`; rivals: `[A, M]`."""
    return rivals[:, aims.start : aims.stop].t().reshape(-1, 1)


def nearest_boundary(
    problem: AttackProblem, x: Tensor, rivals: Tensor, *, candidate: Candidate = True, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The lead `[A]`, positive beyond the boundary and zero on it, and its gradient at `x`, `[A, ...]`.

    The lead of the rival over the true class; of several rivals it is the one with the smallest |lead| / dual norm of
    the gradient (Moosavi-Dezfooli et al. 2016, eq. 8). Under a targeted objective the lead of the goal over all others.

    rivals: int64 `[A, M]`. out: memory for the gradient where M is 1. One forward and M backward passes a sample.
    """
    if isinstance(problem.objective, Targeted):
        return problem.loss_and_gradient(x, "margin", candidate=candidate, out=out)
    if rivals.shape[1] == 1:
        return problem.loss_and_gradient(x, _lead, given=(rivals,), candidate=candidate, out=out)
    at_once = max(1, _NUMBERS_AT_ONCE // (rivals.shape[1] * max(1, x[:1].numel())))
    found = []
    for rows in torch.arange(len(x), device=x.device).split(at_once):
        permitted = candidate[rows] if isinstance(candidate, Tensor) else candidate
        found.append(_nearest_of_several(problem.part(rows), x[rows], rivals[rows], permitted))
    leads, gradients = zip(*found, strict=True)
    return torch.cat(leads), torch.cat(gradients)


def _lead(logits: Tensor, label: Tensor, rival: Tensor) -> Tensor:
    return (logits.gather(1, rival) - logits.gather(1, label[:, None])).squeeze(1)


def _nearest_of_several(part: AttackProblem, x: Tensor, rivals: Tensor, candidate: Candidate) -> tuple[Tensor, Tensor]:
    logits, gradients = part.logits_and_jacobian(x, rivals, part.goal, candidate=candidate)
    leads = logits.gather(1, rivals) - logits.gather(1, part.goal[:, None])
    size = torch.linalg.vector_norm(gradients.flatten(2), ord=_DUAL_ORDER[str(part.norm)], dim=2)
    nearest = (leads.abs() / (size + 1e-12)).argmin(1)
    each = torch.arange(len(x), device=x.device)
    return leads[each, nearest], gradients[each, nearest]
