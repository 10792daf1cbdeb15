"""Foolbox's attacks that see decisions only. Their budgets have no default: Foolbox's own take minutes a sample."""

from typing import Annotated, Literal

import foolbox
from pydantic import Field

from rbl_foolbox.running import run_from_noise
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import SkipCell

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


def hop_skip_jump(
    problem: AttackProblem,
    *,
    steps: Count,
    initial_gradient_eval_steps: Count = 100,
    max_gradient_eval_steps: Count = 10000,
    stepsize_search: Literal["geometric_progression", "grid_search"] = "geometric_progression",
    gamma: Positive = 1.0,
) -> None:
    """`foolbox.attacks.HopSkipJumpAttack`, in the norm of the threat model; Foolbox's own number of steps is 64.

    Sample by sample: Foolbox 3.3.4 divides the estimated gradients of a batch by their common norm, so that in l2 a
    batch of 40 gave three times the distances.
    """
    if problem.bounds != Bounds(0, 1):
        raise SkipCell("foolbox:HopSkipJumpAttack clips to 0..1, whatever the data's bounds")
    attack = foolbox.attacks.HopSkipJumpAttack(
        steps=steps,
        initial_gradient_eval_steps=initial_gradient_eval_steps,
        max_gradient_eval_steps=max_gradient_eval_steps,
        stepsize_search=stepsize_search,
        gamma=gamma,
        constraint="linf" if problem.norm == "linf" else "l2",
    )
    run_from_noise(problem, attack, 1)


def boundary(
    problem: AttackProblem,
    *,
    steps: Count,
    spherical_step: Positive = 1e-2,
    source_step: Positive = 1e-2,
    source_step_convergance: Positive = 1e-7,
    step_adaptation: Positive = 1.5,
    update_stats_every_k: Count = 10,
) -> None:
    """`foolbox.attacks.BoundaryAttack`; Foolbox's own number of steps is 25000."""
    attack = foolbox.attacks.BoundaryAttack(
        steps=steps,
        spherical_step=spherical_step,
        source_step=source_step,
        source_step_convergance=source_step_convergance,
        step_adaptation=step_adaptation,
        update_stats_every_k=update_stats_every_k,
    )
    run_from_noise(problem, attack, problem.batch_size)
