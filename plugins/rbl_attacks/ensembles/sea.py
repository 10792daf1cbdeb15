"""SEA, the segmentation ensemble attack (Croce, Singh & Hein, ECCV 2024, https://arxiv.org/abs/2306.12941).

Several attacks with losses of their own, and of each image the input that does most damage: the core keeps that.
"""

from typing import Annotated

from pydantic import Field

from rbl_attacks.fixed_budget.apgd import apgd, apgd_from_larger_balls
from rbl_attacks.fixed_budget.segpgd import segpgd
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.tasks.segmentation_objectives import Untargeted
from robustbench_lab.threat_models.norm_ball_regions import L2Region, LinfRegion

APGD_LOSSES = ("masked-ce", "js", "masked-spherical")


def sea(problem: AttackProblem, *, steps: Annotated[int, Field(ge=1)] = 100, larger_balls: bool = True) -> None:
    """APGD on three losses, and SegPGD, whose loss is the paper's balanced cross-entropy.

    steps: gradient steps of each of the four.
    larger_balls: in linf and l2, APGD's first three tenths of the steps in a ball of twice the budget and the next
        three tenths in one of 1.5 times it, as in the paper; not where only parts of an image may change. In l1 APGD
        always begins in larger balls.
    """
    if not isinstance(problem.objective, Untargeted):
        raise SkipCell("sea is untargeted: use the untargeted objective, or pgd for a targeted one")
    larger = larger_balls and isinstance(problem.region, LinfRegion | L2Region)
    for loss in APGD_LOSSES:
        if problem.stage(loss):
            (apgd_from_larger_balls if larger else apgd)(problem, steps=steps, loss=loss)
    if problem.stage("segpgd"):
        segpgd(problem, steps=steps)
