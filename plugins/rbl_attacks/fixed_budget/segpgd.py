"""SegPGD (Gu et al., ECCV 2022, https://arxiv.org/abs/2207.12391): PGD that begins with the right pixels."""

from functools import partial
from typing import Annotated

from pydantic import Field

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.tasks.segmentation_objectives import Untargeted, weighted_cross_entropy

Count = Annotated[int, Field(ge=1)]


def segpgd(
    problem: AttackProblem,
    *,
    steps: Count = 100,
    restarts: Count = 1,
    step_size: Annotated[float, Field(gt=0)] | None = None,
) -> None:
    """Steps along the steepest direction; at step t of T wrong pixels weigh (t - 1) / 2T, right ones the rest.

    steps: gradient steps of one restart. restarts: searches from different random starts.
    step_size: in the units of eps; None: 2.5 * eps / steps, so that every point of the region can be reached.
    """
    if not isinstance(problem.objective, Untargeted):
        raise SkipCell("segpgd is untargeted: use the untargeted objective, or pgd for a targeted one")
    size = 2.5 * problem.eps / steps if step_size is None else step_size
    for restart in range(restarts):
        x = problem.random_start(restart)
        problem.new_search(ascends=False)  # the loss is another one at every step
        for step in range(steps):
            loss = partial(weighted_cross_entropy, wrong_weight=step / (2 * steps))
            x = problem.ascend(x, size, loss)
        problem.submit(x)
