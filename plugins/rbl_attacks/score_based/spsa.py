"""SPSA attack (Uesato, O'Donoghue, Kohli & van den Oord, ICML 2018, https://arxiv.org/abs/1802.05666, Algorithm 1)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field

from rbl_attacks.score_based.estimated_gradient import estimated_gradient, rademacher
from robustbench_lab.attack_problem import AttackProblem

Positive = Annotated[float, Field(gt=0)]
MEAN_DECAY, SQUARE_DECAY, TINY = 0.9, 0.999, 1e-8
"""Adam's (Kingma & Ba 2015)."""


def spsa(
    problem: AttackProblem,
    *,
    queries: Annotated[int, Field(ge=3)] = 5000,
    pairs: Annotated[int, Field(ge=1)] = 64,
    delta: Positive = 0.01,
    learning_rate: Positive | None = None,
    loss: str | None = None,
) -> None:
    """Projected Adam on the gradient that simultaneous perturbations (Spall 1992) estimate: steps in random signs.

    queries: forward passes of one sample at most: each step takes two for a pair, and one for the new input.
    pairs: random directions of one step, each looked at both ways; fewer where not even one step could be afforded.
    delta: how far from the input the loss is looked at, for each element, in the units of the data (in `series`: of
        each series' spread).
    learning_rate: Adam's, in the same units; None: a third of what one element may move when all move alike,
        which is the paper's 0.01 at linf 8/255.
    loss: one of the objective's losses; None: the margin, as in the paper, and where more damage is always worse
        the objective's usual one.
    """
    if loss is None and problem.objective.stop_on_success:
        loss = "margin"
    pairs = min(pairs, (queries - 1) // 2)
    steps = queries // (2 * pairs + 1)
    rate = _share_of_one(problem) / 3 if learning_rate is None else learning_rate
    x = problem.clean.clone()
    mean, square = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(1, steps + 1):
        gradient = estimated_gradient(problem, x, rademacher, pairs=pairs, radius=delta, loss=loss, draw=f"spsa/{step}")
        gradient *= problem.unit  # so that Adam's steps are equally long in units of the budget
        mean = mean.lerp_(gradient, 1 - MEAN_DECAY)
        square = square.lerp_(gradient.square(), 1 - SQUARE_DECAY)
        root = (square / (1 - SQUARE_DECAY**step)).sqrt_().add_(TINY)
        x = problem.project(x + rate / (1 - MEAN_DECAY**step) * problem.unit * (mean / root))
        problem.submit(x)
        x, mean, square = problem.drop_done(x, mean, square)
        if problem.finished:
            return


def _share_of_one(problem: AttackProblem) -> float:
    """How far every element may move at once."""
    elements = math.prod(problem.clean.shape[1:])
    return problem.eps if problem.norm == "linf" else problem.eps / math.sqrt(elements)
