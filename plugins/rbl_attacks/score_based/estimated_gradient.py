"""A gradient from differences of the loss along random directions: two queries a direction."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem

Directions = Callable[[AttackProblem, str], Tensor]
"""Of a problem and the name of a draw: one direction for each open sample, `[A, ...]`."""

BITS = 24
"""Random bits in one uniform number."""
LEVELS = 1 << (BITS // 2)


def estimated_gradient(
    problem: AttackProblem,
    x: Tensor,
    directions: Directions,
    *,
    pairs: int,
    radius: float,
    loss: str | None,
    draw: str,
) -> Tensor:
    """The mean over `pairs` directions v of `v * (loss(x + radius v) - loss(x - radius v)) / (2 radius)`, `[A, ...]`.

    The directions are in units of the budget (`problem.unit`), as the radius is. The points looked at may lie outside
    the region, so none of them is a candidate. Where the loss is no number, the direction counts as flat.
    """
    gradient = torch.zeros_like(x)
    for pair in range(pairs):
        direction = directions(problem, f"{draw}/{pair}").mul_(problem.unit)
        ahead = problem.loss(x.add(direction, alpha=radius), loss, candidate=False)
        behind = problem.loss(x.sub(direction, alpha=radius), loss, candidate=False)
        slope = ((ahead - behind) / (2 * radius * pairs)).nan_to_num_(0, 0, 0)
        gradient.addcmul_(direction, slope.view(-1, *[1] * (x.ndim - 1)))
    return gradient / problem.unit**2


def rademacher(problem: AttackProblem, draw: str) -> Tensor:
    """-1 or 1 for each input element, with equal chances, `[A, ...]`."""
    words = _words(problem, draw, BITS)
    flags = (words[:, :, None] >> torch.arange(BITS, dtype=words.dtype, device=words.device)) & 1
    return _cut(flags.flatten(1), problem.clean).to(problem.clean.dtype).mul_(2).sub_(1)


def gaussian(problem: AttackProblem, draw: str) -> Tensor:
    """Standard normal numbers in 4096 steps of equal chance, `[A, ...]`: a third of the time that exact ones take.

    They reach from -3.6 to 3.6; for a mean over directions only their independence and their variance of 1 count.
    """
    words = _words(problem, draw, 2)
    halves = _cut(torch.stack([words >> (BITS // 2), words & (LEVELS - 1)], dim=2).flatten(1), problem.clean)
    return _normal_steps(words.device).index_select(0, halves.flatten()).view_as(problem.clean)


def _words(problem: AttackProblem, draw: str, elements: int) -> Tensor:
    """24-bit integers, one for so many elements, int32 `[A, words]`."""
    count = -(-math.prod(problem.clean.shape[1:]) // elements)
    return (problem.uniform(draw, (count,)) * (1 << BITS)).to(torch.int32)


def _cut(values: Tensor, like: Tensor) -> Tensor:
    return values[:, : math.prod(like.shape[1:])].reshape(like.shape)


@lru_cache(maxsize=8)
def _normal_steps(device: torch.device) -> Tensor:
    """The quantiles at the middles of 4096 equal intervals, at variance 1."""
    steps = torch.tensor([NormalDist().inv_cdf((step + 0.5) / LEVELS) for step in range(LEVELS)], dtype=torch.float64)
    return (steps / steps.square().mean().sqrt()).to(device, torch.float32)
