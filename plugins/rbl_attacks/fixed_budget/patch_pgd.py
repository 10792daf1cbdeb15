"""A patch for each input on its own: projected gradient ascent (pgd.py) on the patch threat model."""

from typing import Annotated

from pydantic import Field

from rbl_attacks.fixed_budget.pgd import pgd
from robustbench_lab.attack_problem import AttackProblem


def patch_pgd(
    problem: AttackProblem,
    *,
    steps: Annotated[int, Field(ge=1)] = 50,
    restarts: Annotated[int, Field(ge=1)] = 10,
    loss: str | None = None,
) -> None:
    """First where the gradient at the clean input promises most, then in windows at random places.

    The place decides more than the values do: a search never leaves the window that it began in.

    steps: gradient steps of one search.
    restarts: searches, the first one included; only samples still unbroken enter the next one.
    loss: one of the objective's losses; None: its usual one.
    """
    problem.new_search()
    pgd(problem, steps=steps, random_start=False, schedule="cosine", loss=loss)
    if restarts > 1 and not problem.finished:
        pgd(problem, steps=steps, restarts=restarts - 1, schedule="cosine", loss=loss)
