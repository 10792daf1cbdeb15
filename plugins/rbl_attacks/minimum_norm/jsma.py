"""JSMA, the Jacobian-based saliency map attack (Papernot et al. 2016, https://arxiv.org/abs/1511.07528, Alg. 3)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.single_values import log_odds, room
from rbl_attacks.minimum_norm.unit_scale import unit
from robustbench_lab.attack_problem import AttackProblem

Count = Annotated[int, Field(ge=1)]


def jsma(
    problem: AttackProblem,
    *,
    steps: Count = 1000,
    features: Count = 2,
    theta: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> None:
    """Changes the few values of largest saliency, step after step, until the goal is reached.

    The saliency of a pair of values is the rise of the target's probability, times the fall of all others'.
    Probabilities sum to 1, so that one is the other, and the best pair are the two values that raise it most: the
    exact search of the paper without its D**2 pairs. The untargeted objective lowers the true class (the non-targeted
    variant of Wiyatno & Xu 2018, https://arxiv.org/abs/1808.07945), and as in their maximal variant a value may rise
    or fall. A derivative counts as much as its value has room to move; a value never turns back.

    steps: steps at most; each changes `features` values.
    features: values changed in one step; 2 in the paper.
    theta: how far a value moves in one step, as a share of the data's range; 1: to its bound.
    """
    problem.new_search(ascends=False)
    loss = log_odds(problem)
    x = problem.clean.clone()
    for _ in range(steps):
        probe = problem.probe(x, loss)
        step = _step(problem, x, probe.gradient.nan_to_num_(0, 0, 0), features, theta)
        index = (~probe.succeeded & (step != 0).flatten(1).any(1)).nonzero().squeeze(1)
        problem, x = problem.part(index), x[index]
        if problem.finished:
            return
        x = x.add_(step[index]).clamp_(problem.bounds.low, problem.bounds.high)
    problem.submit(x)


def _step(problem: AttackProblem, x: Tensor, gradient: Tensor, features: int, theta: float) -> Tensor:
    """The change of the values of largest saliency, `[A, ...]`; 0 where none helps."""
    flat = gradient.flatten(1)
    down, up = (way.clamp_max_(theta * unit(problem)) for way in room(problem, x))
    turns_back = (x - problem.clean).flatten(1) * flat < 0
    gain = torch.where(flat > 0, up, down).mul_(flat.abs()).masked_fill_(turns_back, 0)
    size, chosen = gain.topk(min(features, gain.shape[1]), dim=1)
    moves = torch.where(flat > 0, up, -down).gather(1, chosen).mul_(size > 0)
    return torch.zeros_like(flat).scatter_(1, chosen, moves).reshape(x.shape)
