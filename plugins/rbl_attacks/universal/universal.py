"""One perturbation for all inputs (Moosavi-Dezfooli et al. 2017, https://arxiv.org/abs/1610.08401).

By gradient ascent on the mean of a bounded loss (Shafahi et al. 2020, https://arxiv.org/abs/1811.11304, section 3).
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.universal.bounded_loss import shared_gradient
from rbl_attacks.universal.minibatches import folds_of, minibatches
from robustbench_lab.attack_problem import AttackProblem

Count = Annotated[int, Field(ge=1)]


def universal(
    problem: AttackProblem,
    *,
    steps: Count = 300,
    batch: Count = 128,
    step_size: Annotated[float, Field(gt=0)] = 0.1,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    softness: Annotated[float, Field(gt=0)] = 0.1,
    folds: Count = 1,
    loss: str | None = None,
) -> None:
    """The same perturbation on every sample, clipped to the data's bounds; in `series` in units of each series' spread.

    steps: gradient steps, each on the mean over a minibatch.
    batch: samples of a minibatch.
    step_size: of the first step, as a share of eps; it falls to 0 linearly.
    momentum: share of the accumulated gradient that is kept at each step.
    softness: how far from being decided samples count, as a share of the usual margin; see bounded_loss.py.
    folds: 1: trained on the samples that it is tested on. More: one perturbation for each part of the samples, trained
        on the other parts.
    loss: one of the objective's losses; None: see bounded_loss.py.
    """
    problem.new_search(ascends=False)
    for training, tested in folds_of(problem, folds):
        delta = torch.zeros_like(problem.clean[0])
        velocity = torch.zeros_like(delta)
        for step, part in enumerate(minibatches(training, steps, batch)):
            x = part.project(part.clean + delta * part.unit)
            gradient = (shared_gradient(part, x, loss, softness) * part.unit).mean(0)
            velocity = momentum * velocity + _direction(gradient, problem.norm)
            size = step_size * problem.eps * (1 - step / steps)
            delta = _into_ball(delta + size * _direction(velocity, problem.norm), problem.norm, problem.eps)
        problem.keep("perturbation", delta)
        tested.submit(tested.project(tested.clean + delta * tested.unit))


def _direction(gradient: Tensor, norm: str | None) -> Tensor:
    """The step of size 1 in `linf` or `l2` along which a linear loss rises most."""
    if norm == "linf":
        return gradient.sign()
    size: Tensor = torch.linalg.vector_norm(gradient)
    return gradient / size.clamp_min(1e-30)


def _into_ball(delta: Tensor, norm: str | None, eps: float) -> Tensor:
    if norm == "linf":
        return delta.clamp(-eps, eps)
    size: Tensor = torch.linalg.vector_norm(delta)
    return delta * (eps / size.clamp_min(eps))
