"""NES attack (Ilyas, Engstrom, Athalye & Lin, ICML 2018, https://arxiv.org/abs/1804.08598): PGD without gradients."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from rbl_attacks.score_based.estimated_gradient import estimated_gradient, gaussian
from robustbench_lab.attack_problem import AttackProblem

Positive = Annotated[float, Field(gt=0)]


def nes(
    problem: AttackProblem,
    *,
    queries: Annotated[int, Field(ge=3)] = 5000,
    pairs: Annotated[int, Field(ge=1)] = 25,
    sigma: Positive = 0.001,
    step_size: Positive | None = None,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    loss: str | None = None,
) -> None:
    """Steps along the gradient of the loss smoothed by a Gaussian, estimated by natural evolution strategies.

    Algorithm 1 of the paper with antithetic directions; the steps are projected, as in its partial-information code
    (https://github.com/labsix/limited-blackbox-attacks).

    queries: forward passes of one sample at most: each step takes two for a pair, and one for the new input.
    pairs: random directions of one step, each looked at both ways; fewer where not even one step could be afforded.
    sigma: the Gaussian's standard deviation, in the units of the data (in `series`: of each series' spread).
    step_size: of the first step, in the units of eps; None: eps / 5, the paper's 0.01 at 0.05. It falls to 0 linearly.
    momentum: share of the last direction that each step keeps.
    loss: one of the objective's losses; None: its usual one.
    """
    pairs = min(pairs, (queries - 1) // 2)
    steps = queries // (2 * pairs + 1)
    size = problem.eps / 5 if step_size is None else step_size
    x = problem.clean.clone()
    velocity = torch.zeros_like(x)
    for step in range(steps):
        gradient = estimated_gradient(problem, x, gaussian, pairs=pairs, radius=sigma, loss=loss, draw=f"nes/{step}")
        velocity = momentum * velocity + (1 - momentum) * gradient
        x = problem.project(x + size * (1 - step / steps) * problem.steepest(velocity.clone(), x))
        problem.submit(x)
        x, velocity = problem.drop_done(x, velocity)
        if problem.finished:
            return
