"""SEA, the segmentation ensemble attack (Croce, Singh & Hein, ECCV 2024, https://arxiv.org/abs/2306.12941).

Several attacks with losses of their own, and of each image the input that does most damage: the core keeps that. Two
things differ from the paper: APGD does not begin in larger balls, and a search has 100 steps unless more are asked for,
not 300.
"""

from typing import Annotated

from pydantic import Field

from rbl_attacks.fixed_budget.apgd import apgd
from rbl_attacks.fixed_budget.segpgd import segpgd
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.tasks.segmentation_objectives import Untargeted

APGD_LOSSES = ("masked-ce", "js", "masked-spherical")


def sea(problem: AttackProblem, *, steps: Annotated[int, Field(ge=1)] = 100) -> None:
    """APGD on three losses, and SegPGD, whose loss is the paper's balanced cross-entropy.

    steps: gradient steps of each of the four.
    """
    if not isinstance(problem.objective, Untargeted):
        raise SkipCell("sea is untargeted: use the untargeted objective, or pgd for a targeted one")
    for loss in APGD_LOSSES:
        if problem.stage(loss):
            apgd(problem, steps=steps, loss=loss)
    if problem.stage("segpgd"):
        segpgd(problem, steps=steps)
