"""MI-FGSM: momentum iterative fast gradient sign method (Dong et al., CVPR 2018, https://arxiv.org/abs/1710.06081)."""

import torch

from rbl_attacks.transfer.momentum import Count, Decay, Size, accumulated, ascend, step_size_or_default
from robustbench_lab.attack_problem import AttackProblem


def mim(
    problem: AttackProblem,
    *,
    steps: Count = 10,
    step_size: Size | None = None,
    decay: Decay = 1.0,
    loss: str | None = None,
) -> None:
    """Steps along the accumulated gradient, from the clean input (Algorithm 1; in l2 eq. 8).

    steps: gradient steps.
    step_size: in the units of eps; None: eps / steps.
    decay: what is kept of the accumulated gradient in a step.
    loss: one of the objective's losses; None: its usual one.
    """
    size = step_size_or_default(problem, step_size, steps)
    x, velocity = problem.clean.clone(), torch.zeros_like(problem.clean)
    gradient = None
    for _ in range(steps):
        _, gradient = problem.loss_and_gradient(x, loss, out=gradient)
        x, velocity, gradient = problem.drop_done(x, velocity, gradient)
        if problem.finished:
            return
        velocity = accumulated(problem, velocity, gradient, decay)
        x = ascend(problem, x, velocity, size)
    problem.submit(x)
