"""Foolbox's gradient attacks as functions of an attack problem. Defaults are Foolbox's own."""

from typing import Annotated, Any

import foolbox
from pydantic import Field

from rbl_foolbox.running import run
from robustbench_lab.attack_problem import AttackProblem

Steps = Annotated[int, Field(ge=1)]
Step = Annotated[float, Field(gt=0)]


def linf_pgd(
    problem: AttackProblem,
    *,
    rel_stepsize: Step = 0.01 / 0.3,
    abs_stepsize: Step | None = None,
    steps: Steps = 40,
    random_start: bool = True,
) -> None:
    """`foolbox.attacks.LinfPGD`."""
    run(problem, foolbox.attacks.LinfPGD(**_iterative(rel_stepsize, abs_stepsize, steps, random_start)))


def l2_pgd(
    problem: AttackProblem,
    *,
    rel_stepsize: Step = 0.025,
    abs_stepsize: Step | None = None,
    steps: Steps = 50,
    random_start: bool = True,
) -> None:
    """`foolbox.attacks.L2PGD`."""
    run(problem, foolbox.attacks.L2PGD(**_iterative(rel_stepsize, abs_stepsize, steps, random_start)))


def l1_pgd(
    problem: AttackProblem,
    *,
    rel_stepsize: Step = 0.025,
    abs_stepsize: Step | None = None,
    steps: Steps = 50,
    random_start: bool = True,
) -> None:
    """`foolbox.attacks.L1PGD`."""
    run(problem, foolbox.attacks.L1PGD(**_iterative(rel_stepsize, abs_stepsize, steps, random_start)))


def linf_fast_gradient(problem: AttackProblem, *, random_start: bool = False) -> None:
    """`foolbox.attacks.LinfFastGradientAttack`."""
    run(problem, foolbox.attacks.LinfFastGradientAttack(random_start=random_start))


def l2_fast_gradient(problem: AttackProblem, *, random_start: bool = False) -> None:
    """`foolbox.attacks.L2FastGradientAttack`."""
    run(problem, foolbox.attacks.L2FastGradientAttack(random_start=random_start))


def _iterative(rel_stepsize: float, abs_stepsize: float | None, steps: int, random_start: bool) -> dict[str, Any]:
    return {
        "rel_stepsize": rel_stepsize,
        "abs_stepsize": abs_stepsize,
        "steps": steps,
        "random_start": random_start,
    }
