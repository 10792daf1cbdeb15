"""What the attacks that change one input value after the other have in common."""

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.passes.model_queries import Loss


def log_odds(problem: AttackProblem) -> Loss:
    """A loss that rises as the goal's class loses (targeted: wins) against all others together.

    Its gradient is that of the class's probability p, divided by p (1 - p): the same direction, which does not vanish
    on a confident model.
    """

    def loss(prediction: Tensor, goal: Tensor) -> Tensor:
        own = prediction.gather(1, goal[:, None])
        others = prediction.scatter(1, goal[:, None], float("-inf")).logsumexp(1, keepdim=True)
        # A margin of two classes, so that the objective gives it the right sign.
        return problem.objective.loss("margin", torch.cat([own, others], 1), torch.zeros_like(goal))

    return loss


def room(problem: AttackProblem, x: Tensor) -> tuple[Tensor, Tensor]:
    """How far each value can fall and rise, `[A, D]` both; an open bound is taken to be 1 away."""
    flat = x.flatten(1)
    return _reach(flat - problem.bounds.low), _reach(problem.bounds.high - flat)


def _reach(way: Tensor) -> Tensor:
    return torch.where(way.isfinite(), way, 1).clamp_min_(0)
