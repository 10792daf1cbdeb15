"""One step of swift's climbs: its size and its direction in each norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem

FIRST_STEP = {"linf": 2.0, "l2": 8.0, "l1": 4.0}
"""In units of the budget. In linf it takes any point of the ball to the opposite side. A ball has no corners to stop
at: there a step far beyond it goes, after the projection, to where the gradient points, whatever the start."""
WIDEST, WIDE_SHARE = 5.0, 0.6
"""A wide climb begins in an l1 ball of this many budgets; after this share of its steps it is in the ball itself."""


def step_size(norm: str | None, progress: float, steps: int) -> float:
    """In units of the budget: falls geometrically from the first step to `1 / steps` of it. progress: 0 to 1."""
    return FIRST_STEP[norm or "linf"] * math.exp(-progress * math.log(steps))


def radius(norm: str | None, progress: float) -> float:
    """Of the ball that a wide climb moves in, in units of the budget; 1 but in l1. progress: 0 to 1.

    The l1 ball touches the box in few places, and a climb that is held to it from the start chooses its few coordinates
    too early. Croce & Hein, "Mind the box", ICML 2021, section 3.3, use radii of 3, 2 and 1; here it falls evenly.
    """
    return max(1.0, WIDEST - (WIDEST - 1) * progress / WIDE_SHARE) if norm == "l1" else 1.0


def direction(problem: AttackProblem, gradient: Tensor, x: Tensor, progress: float) -> Tensor:
    """The direction of a step, of length 1 in the norm, `[A, ...]`; may overwrite `gradient`.

    In l1 the number of coordinates that a step moves falls from four times the root of their number to 1: many to find
    the region, few in the end, because the best points of an l1 ball are sparse. Croce & Hein 2021 adapt that number to
    the sparsity of the best point; a schedule needs no long run to learn it.
    """
    gradient = gradient.nan_to_num_(0, 0, 0)
    if problem.norm != "l1":
        return problem.steepest(gradient, x)
    widest = 4 * x[:1].numel() ** 0.5
    return _largest_coordinates(problem, gradient, x, round(widest ** (1 - progress)))


def _largest_coordinates(problem: AttackProblem, gradient: Tensor, x: Tensor, count: int) -> Tensor:
    """Equal parts on the coordinates of largest gradient that their bounds do not stop; 0 where there is none."""
    gradient, position = gradient.flatten(1), x.flatten(1)
    movable = torch.where(gradient > 0, position < problem.bounds.high, position > problem.bounds.low)
    size, chosen = torch.where(movable, gradient.abs(), 0).topk(min(count, gradient.shape[1]), dim=1)
    used = size > 0
    part = gradient.gather(1, chosen).sign() * used / used.sum(1, keepdim=True).clamp_(min=1)
    return torch.zeros_like(gradient).scatter_(1, chosen, part).reshape(x.shape)
