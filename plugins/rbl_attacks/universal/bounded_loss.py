"""What one perturbation of many samples climbs: a loss in which no single sample outweighs the others."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem


def shared_gradient(problem: AttackProblem, x: Tensor, loss: str | None, softness: float) -> Tensor:
    """The gradient `[A, ...]`, with respect to `x`, of what each sample adds to the climb; 0 where it is not finite.

    loss: one of the objective's. None: where samples are broken or not, a smooth count of the broken ones; where more
    damage is always worse, as on detectors, the objective's usual loss.
    """
    if loss is None and problem.objective.stop_on_success:
        return success_gradient(problem, x, softness)
    _, gradient = problem.loss_and_gradient(x, loss, candidate=False)
    return gradient.nan_to_num_(0, 0, 0)


def success_gradient(problem: AttackProblem, x: Tensor, softness: float) -> Tensor:
    """The gradient `[A, ...]`, with respect to `x`, of a smooth count of the samples that are broken.

    A sample counts `sigmoid(margin / scale)`: 1 where it is broken for good, 0 where it is out of reach, so that those
    near the decision are climbed. (Shafahi et al. clip the cross-entropy from above, and leave samples out of reach
    their full weight: on a network trained against attacks that breaks half as many.)

    softness: the scale, as a share of the median absolute margin of these samples. Gradients that are not finite are 0.
    """
    margin, gradient = problem.loss_and_gradient(x, "margin", candidate=False)
    scale = softness * margin.abs().nanmedian().clamp_min(1e-12)
    count = torch.sigmoid(margin / scale)
    slope = (count * (1 - count)).view(-1, *[1] * (x.ndim - 1))
    return (gradient * slope).nan_to_num_(0, 0, 0)
