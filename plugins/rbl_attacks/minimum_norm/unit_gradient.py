"""The gradient's direction, for steps whose length the attack sets itself."""

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem

_TINY = 1e-12


def unit_gradient(problem: AttackProblem, gradient: Tensor, draw: str) -> Tensor:
    """The gradient `[A, ...]` at Euclidean length 1 for each sample; may overwrite it.

    A sample without a usable gradient (all zero, NaN or infinite) gets a random direction, named by `draw`: standing
    still would hand in the same point again (Rony et al. 2019 do so, too).
    """
    length = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    unusable = ~((length > _TINY) & length.isfinite())
    if bool(unusable.any()):
        gradient = torch.where(per_sample(unusable, gradient), _rescued(problem, gradient, draw), gradient)
        length = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return gradient.div_(per_sample(length, gradient))


def _rescued(problem: AttackProblem, gradient: Tensor, draw: str) -> Tensor:
    """The gradient at largest entry 1 (its squares may underflow in float32); random where it has no direction."""
    largest = gradient.abs().flatten(1).amax(1)
    lost = ~((largest > 0) & largest.isfinite())
    return torch.where(per_sample(lost, gradient), problem.normal(draw), gradient / per_sample(largest, gradient))


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """`[A]` to `[A, 1, ...]`, to go with `like` `[A, ...]`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
