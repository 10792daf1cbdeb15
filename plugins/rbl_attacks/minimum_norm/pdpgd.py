"""Primal-dual proximal gradient descent (Matyasko & Chau 2021, https://arxiv.org/abs/2106.01538), Algorithm 2."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.adam import Adam
from rbl_attacks.minimum_norm.proximal import PROXIMAL
from rbl_attacks.minimum_norm.shorten import shorten
from rbl_attacks.minimum_norm.unit_gradient import per_sample
from rbl_attacks.minimum_norm.unit_scale import clip_, moved, unit
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell

Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]

_AVERAGE = 0.9
"""Decay of the mean of the dual variable."""
_LARGEST_RATIO = 1e6
_FALLBACK_RATIO = 0.01
"""The authors' ratio at the start, for samples whose gradient there says nothing."""
_STEEPEST = 1e15
"""Keeps the squares of gradients finite."""


def pdpgd(
    problem: AttackProblem,
    *,
    steps: Annotated[int, Field(ge=1)] = 500,
    step_size: Rate = 0.1,
    final_step: Share = 0.01,
    initial_ratio: Rate = 0.03,
    dual_step: Rate = 0.1,
    final_dual_step: Share = 0.1,
    final_search: Annotated[int, Field(ge=0)] = 10,
) -> None:
    """Descent on the margin, a proximal step on the norm, and ascent on the ratio of their weights.

    The weight of the norm grows while a sample is adversarial and falls while it is not. Where the authors iterate
    towards the proximal point in Adam's metric, it is computed here. Their first weight of the norm is 0.01 of the
    margin's on every model; here it follows the gradient, so that it fits every norm and every scale of the logits.

    steps: gradient steps.
    step_size: Adam's learning rate at the start, in units of the data's range.
    final_step: its learning rate at the end, as a share of that at the start; it falls geometrically.
    initial_ratio: the norm's weight at the start, as a share of the one at which it balances the margin there.
    dual_step: change of the logarithm of the ratio in the first step.
    final_dual_step: that in the last step, as a share of that in the first; it falls linearly.
    final_search: forward passes at the end, of a bisection between the clean and the nearest adversarial input; not
        in the paper, and of no use in l0.
    """
    if problem.norm not in PROXIMAL:
        raise SkipCell("pdpgd needs a threat model that is a norm: linf, l2, l1 or l0")
    problem.new_search(ascends=False)
    change = torch.zeros_like(problem.clean)
    adam = Adam(change)
    scale = log_ratio = share = change.new_empty(0)
    for step in range(steps):
        probe = problem.probe(moved(problem, change), "margin")
        missed = torch.where(probe.succeeded, -1.0, 1.0)
        gradient = probe.gradient.mul_(unit(problem)).nan_to_num_(0, 0, 0)
        if step == 0:
            scale = _largest_entry(gradient)
            log_ratio = (initial_ratio * _balance(gradient / per_sample(scale, change), problem.norm, step_size)).log_()
            share = log_ratio.sigmoid()
        gradient.div_(per_sample(scale, change)).clamp_(-_STEEPEST, _STEEPEST)
        mean, size = adam.step(gradient.mul_(per_sample(-(-probe.loss).sigmoid().nan_to_num_(0), change)))
        rate = step_size * final_step ** (step / steps)
        change = clip_(problem, change.addcdiv_(mean, size, value=-rate))
        change = clip_(problem, PROXIMAL[problem.norm](change, size, share / (1 - share) * rate))
        dual_rate = dual_step * (1 - (1 - final_dual_step) * step / steps)
        limit = math.log(_LARGEST_RATIO)
        log_ratio = log_ratio.sub(missed, alpha=dual_rate).clamp_(-limit, limit)
        share = share.lerp(log_ratio.sigmoid(), 1 - _AVERAGE)
    problem.submit(moved(problem, change))
    if problem.norm != "l0":
        shorten(problem, final_search)


def _balance(gradient: Tensor, norm: str, step_size: float) -> Tensor:
    """The ratio of the weights at which a change costs as much as it gains, `[A]`.

    That is the margin's dual norm. In l0, where a change of any size costs 1: what one step of the best value gains.
    """
    flat = gradient.flatten(1)
    if norm == "l0":
        balance = flat.abs().amax(1) * step_size / 2
    else:
        dual = {"linf": 1, "l2": 2, "l1": math.inf}[norm]
        balance = torch.linalg.vector_norm(flat, ord=dual, dim=1)
    return torch.where(balance > 0, balance, _FALLBACK_RATIO)


def _largest_entry(gradient: Tensor) -> Tensor:
    """What gradients are divided by, `[A]`: the scale of the logits makes no difference then."""
    largest = gradient.flatten(1).abs().amax(1)
    return torch.where(largest > 0, largest, 1)
