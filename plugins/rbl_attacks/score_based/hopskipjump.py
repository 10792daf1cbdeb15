"""HopSkipJump (Chen, Jordan & Wainwright, IEEE S&P 2020, https://arxiv.org/abs/1904.02144), Algorithms 1 and 2.

It sees decisions only: from a point on the decision boundary it estimates the boundary's normal by the decisions at
random points nearby, leaps along it, and returns to the boundary by bisection towards the clean input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.records import Finding, Severity

Count = Annotated[int, Field(ge=1)]

_LEAPS = 5
"""Sizes tried for one leap, each half of the one before."""
_SIGN_BITS = 24
"""Random bits in one uniform number."""


def hopskipjump(
    problem: AttackProblem,
    *,
    queries: Count = 1000,
    initial_evaluations: Count | None = None,
    radius: Annotated[float, Field(gt=0, le=1)] = 0.1,
    starts: Count = 25,
) -> None:
    """Leaps along estimated normals of the decision boundary, each followed by a bisection.

    The paper estimates within 1/D of the distance, from 100 decisions on, and lets the t-th leap shrink as t**-0.5.
    On an adversarially trained CIFAR-10 net wider estimates, leaps as t**-0.25 and, in l2, half as many decisions came
    at least 10% nearer at 1250 queries.

    queries: decisions asked for at most, for each sample.
    initial_evaluations: decisions for the first estimate; the t-th takes sqrt(t) times as many. None: 50 in l2; 100 in
        linf, where an estimate loses more by its noise, as only its signs count.
    radius: how far from the boundary an estimate looks, as a share of the distance to the clean input.
    starts: random inputs tried, until one is adversarial; at most a fiftieth of the queries.
    """
    starts = min(starts, math.ceil(queries / 50))
    x, found = _starting_points(problem, starts)
    if not bool(found.all()):
        text = "no random input was adversarial, so the search could not start there"
        problem.note(Finding("no-starting-point", Severity.SUSPECT, text, float((~found).sum())))
    rows = found.nonzero().squeeze(1)
    problem, x = problem.part(rows), x[rows]
    if problem.finished:
        return
    bisections = min(_bisections(problem, radius), queries - starts)
    x = _to_boundary(problem, x, bisections)
    first = initial_evaluations or (100 if problem.norm == "linf" else 50)
    for step, evaluations in enumerate(_plan(queries - starts - bisections, first, _LEAPS + bisections)):
        distance = problem.distance(x)
        normal = _normal(problem, x, distance * radius, evaluations, f"normal/{step}")
        x = _leap(problem, x, problem.steepest(normal, x), distance * (step + 1) ** -0.25)
        x = _to_boundary(problem, x, bisections)


def _plan(queries: int, initial: int, overhead: int) -> list[int]:
    """Decisions for the estimate of each step: as many steps as there are queries for, and all of these used."""
    wanted: list[float] = []
    while sum(wanted) + initial * math.sqrt(len(wanted) + 1) + overhead * (len(wanted) + 1) <= queries:
        wanted.append(initial * math.sqrt(len(wanted) + 1))
    if not wanted:
        return [queries - overhead] if queries > overhead else []
    share = (queries - overhead * len(wanted)) / sum(wanted)
    return [int(one * share) for one in wanted]


def _starting_points(problem: AttackProblem, tries: int) -> tuple[Tensor, Tensor]:
    """A random adversarial input for each sample, `[A, ...]`, and whether there is one, bool `[A]`."""
    x = problem.clean.clone()
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for attempt in range(tries):
        missing = (~found).nonzero().squeeze(1)
        if len(missing) == 0:
            break
        part = problem.part(missing)
        noise = _noise(part, attempt)
        succeeded = part.succeeded(noise)
        x[missing[succeeded]] = noise[succeeded]
        found[missing[succeeded]] = True
    return x, found


def _noise(problem: AttackProblem, attempt: int) -> Tensor:
    bounds = problem.bounds
    if math.isfinite(bounds.width):
        return problem.uniform(f"start/{attempt}").mul_(bounds.width).add_(bounds.low).clamp_(bounds.low, bounds.high)
    scale = problem.clean.abs().flatten(1).amax(1).clamp_min(1.0) * 2.0 ** (attempt / 4)
    noise = _per_sample(scale, problem.clean) * problem.normal(f"start/{attempt}")
    return noise.add_(problem.clean).clamp_(bounds.low, bounds.high)


def _bisections(problem: AttackProblem, radius: float) -> int:
    """Halvings of the way to the clean input, until the error is as small as what an estimate can see.

    A random direction of length r has a part of r / sqrt(D) along the normal; in linf the error is one in every
    coordinate, sqrt(D) times as long (eq. 15: a precision of radius / sqrt(D) in l2, radius / D in linf).
    """
    dimension = math.prod(problem.clean.shape[1:])
    precision = radius / (dimension if problem.norm == "linf" else math.sqrt(dimension))
    return min(_SIGN_BITS, max(1, math.ceil(-math.log2(precision))))


def _to_boundary(problem: AttackProblem, x: Tensor, bisections: int) -> Tensor:
    """Adversarial points between the clean inputs and `x` just beyond the boundary, `[A, ...]`."""
    delta = x - problem.clean
    distance = problem.distance(x)
    low, high, nearest = torch.zeros_like(distance), torch.ones_like(distance), x
    for _ in range(bisections):
        middle = (low + high) / 2
        point = problem.clean + _shortened(problem, delta, middle, distance)
        succeeded = problem.succeeded(point)
        low, high = torch.where(succeeded, low, middle), torch.where(succeeded, middle, high)
        nearest = torch.where(_per_sample(succeeded, x), point, nearest)
    return nearest


def _shortened(problem: AttackProblem, delta: Tensor, share: Tensor, distance: Tensor) -> Tensor:
    """`delta` at a share `[A]` of its size: clipped coordinate by coordinate in linf, scaled in l2 (eq. 11)."""
    if problem.norm == "linf":
        limit = _per_sample(share * distance, delta)
        return torch.minimum(torch.maximum(delta, -limit), limit)
    return delta * _per_sample(share, delta)


def _normal(problem: AttackProblem, x: Tensor, radius: Tensor, evaluations: int, draw: str) -> Tensor:
    """The estimated normal of the boundary at `x`, towards the adversarial side, of any length (eq. 16).

    The mean of the directions, weighted by the decisions less the mean decision.
    """
    weighted, plain, decisions = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(radius)
    for offset in _directions(problem, radius, evaluations, draw):
        point = offset.add_(x).clamp_(problem.bounds.low, problem.bounds.high)
        decision = problem.succeeded(point, candidate=False).to(x.dtype).mul_(2).sub_(1)
        moved = point.sub_(x)
        weighted.addcmul_(moved, _per_sample(decision, x))
        plain += moved
        decisions += decision
    mean = decisions / evaluations
    return weighted.sub_(plain.mul_(_per_sample(torch.where(mean.abs() < 1, mean, 0), x)))


def _directions(problem: AttackProblem, length: Tensor, count: int, draw: str) -> Iterator[Tensor]:
    """`count` random directions of a length `[A]` each, `[A, ...]`: each one normally distributed, then rescaled.

    Normal numbers are dear: the sizes of a few coordinates serve several directions, each with signs of its own.
    """
    for start in range(0, count, _SIGN_BITS):
        size = problem.normal(f"{draw}/size/{start}")
        size *= _per_sample(length / torch.linalg.vector_norm(size.flatten(1), dim=1), size)
        signs = problem.uniform(f"{draw}/signs/{start}").mul_(2.0**_SIGN_BITS).to(torch.int32)
        for bit in range(min(_SIGN_BITS, count - start)):
            yield torch.where(signs.bitwise_and(1 << bit) > 0, size, -size)


def _leap(problem: AttackProblem, x: Tensor, direction: Tensor, size: Tensor) -> Tensor:
    """`x` moved along the direction by `size` `[A]`, or by half of it, and so on, so that it stays adversarial."""
    landed = x.clone()
    waiting = torch.arange(len(x), device=x.device)
    for _ in range(_LEAPS):
        part = problem.part(waiting)
        step = direction[waiting] * _per_sample(size[waiting], x)
        point = step.add_(x[waiting]).clamp_(problem.bounds.low, problem.bounds.high)
        succeeded = part.succeeded(point, candidate=False)
        landed[waiting[succeeded]] = point[succeeded]
        waiting, size = waiting[~succeeded], size / 2
        if len(waiting) == 0:
            break
    return landed


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """`[A]` to `[A, 1, ...]`, to go with `like` `[A, ...]`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
