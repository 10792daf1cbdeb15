"""A gradient from differences of the loss along random directions: two queries a direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem

BITS = 24
"""Random bits in one uniform number."""
LEVELS = 1 << (BITS // 2)
DRAWN_AT_ONCE = 1 << 16
"""Elements of directions whose random numbers are drawn together: a draw of few costs as much as one of thousands."""


@dataclass(frozen=True)
class Directions:
    """How directions are made of random 24-bit integers."""

    elements: int
    """Those that one integer makes."""
    make: Callable[[Tensor], Tensor]
    """Integers int32 `[..., W]` to elements `[..., W, elements]`."""


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
    the region, so none of them is a candidate. Where the loss is no number, the direction counts as flat. Where samples
    are few, several directions go into one batch.
    """
    gradient = torch.zeros_like(x)
    at_once = min(pairs, max(1, problem.searches_at_once // 2))
    several = {}
    for ways in drawn(problem, directions, pairs, draw, at_once):
        ways.mul_(problem.unit)
        if len(ways) not in several:
            several[len(ways)] = problem.repeated(2 * len(ways))
        points = torch.cat([x.add(ways, alpha=radius), x.sub(ways, alpha=radius)])
        ahead, behind = several[len(ways)].loss(points.flatten(0, 1), loss, candidate=False).view(2, len(ways), len(x))
        slopes = ((ahead - behind) / (2 * radius * pairs)).nan_to_num_(0, 0, 0)
        for way, slope in zip(ways, slopes, strict=True):
            gradient.addcmul_(way, slope.view(-1, *[1] * (x.ndim - 1)))
    return gradient / problem.unit**2


def drawn(problem: AttackProblem, directions: Directions, pairs: int, draw: str, at_once: int) -> Iterator[Tensor]:
    """All directions, `[P, A, ...]` with at most `at_once` for P; the same whatever that is."""
    shape = problem.clean.shape
    dimension = math.prod(shape[1:])
    together = max(1, DRAWN_AT_ONCE // dimension)
    for first in range(0, pairs, together):
        words = (min(together, pairs - first), -(-dimension // directions.elements))
        numbers = (problem.uniform(f"{draw}/{first}", words) * (1 << BITS)).to(torch.int32)
        for some in numbers.transpose(0, 1).split(at_once):
            yield directions.make(some).flatten(2)[:, :, :dimension].reshape(-1, *shape)


def _signs(words: Tensor) -> Tensor:
    bits = (words[..., None] >> torch.arange(BITS, dtype=words.dtype, device=words.device)) & 1
    return bits.float().mul_(2).sub_(1)


def _normals(words: Tensor) -> Tensor:
    halves = torch.stack([words >> (BITS // 2), words & (LEVELS - 1)], dim=-1)
    return _normal_steps(words.device)[halves]


rademacher = Directions(BITS, _signs)
"""-1 or 1 for each input element, with equal chances."""
gaussian = Directions(2, _normals)
"""Standard normal numbers in 4096 steps of equal chance: a third of the time that exact ones take.

They reach from -3.6 to 3.6; for a mean over directions only their independence and their variance of 1 count.
"""


@lru_cache(maxsize=8)
def _normal_steps(device: torch.device) -> Tensor:
    """The quantiles at the middles of 4096 equal intervals, at variance 1."""
    steps = torch.tensor([NormalDist().inv_cdf((step + 0.5) / LEVELS) for step in range(LEVELS)], dtype=torch.float64)
    return (steps / steps.square().mean().sqrt()).to(device, torch.float32)
