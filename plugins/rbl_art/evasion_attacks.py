"""ART's attacks within a budget, as functions of an attack problem. Defaults are ART's own, but for step sizes."""

import math
from typing import Annotated, Literal

from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent, SquareAttack
from pydantic import Field

from rbl_art.running import art_norm, classifier, run, targeted
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


def projected_gradient_descent(
    problem: AttackProblem,
    *,
    eps_step: Positive | None = None,
    max_iter: Count = 100,
    num_random_init: Annotated[int, Field(ge=0)] = 0,
) -> None:
    """`art.attacks.evasion.ProjectedGradientDescent`.

    eps_step: None: 2.5 * eps / max_iter. ART's own default of 0.1 is larger than most budgets, and ART refuses it then.
    """
    attack = ProjectedGradientDescent(
        classifier(problem),
        norm=art_norm(problem),
        eps=problem.eps,
        eps_step=2.5 * problem.eps / max_iter if eps_step is None else eps_step,
        max_iter=max_iter,
        num_random_init=num_random_init,
        targeted=targeted(problem),
        batch_size=problem.batch_size,
        verbose=False,
    )
    run(problem, attack)


def auto_projected_gradient_descent(
    problem: AttackProblem,
    *,
    eps_step: Positive | None = None,
    max_iter: Count = 100,
    nb_random_init: Count = 5,
    loss_type: Literal["cross_entropy", "difference_logits_ratio"] = "cross_entropy",
) -> None:
    """`art.attacks.evasion.AutoProjectedGradientDescent`.

    eps_step: the first step size; None: 2 * eps, as in the paper. ART's own default is 0.1, whatever the budget.
    loss_type: ART's own default is the loss of its estimator, which here is the cross-entropy.
    """
    attack = AutoProjectedGradientDescent(
        classifier(problem),
        norm=art_norm(problem),
        eps=problem.eps,
        eps_step=2 * problem.eps if eps_step is None else eps_step,
        max_iter=max_iter,
        nb_random_init=nb_random_init,
        targeted=targeted(problem),
        batch_size=problem.batch_size,
        loss_type=loss_type,
        verbose=False,
    )
    run(problem, attack)


def square_attack(
    problem: AttackProblem,
    *,
    max_iter: Count = 100,
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8,
    nb_restarts: Count = 1,
) -> None:
    """`art.attacks.evasion.SquareAttack`."""
    if targeted(problem):
        raise SkipCell("art:SquareAttack knows the objective untargeted only")
    shape = problem.clean.shape[2:]
    if len(shape) != 2 or round(math.sqrt(p_init * math.prod(shape))) >= min(shape):
        raise SkipCell("art:SquareAttack needs images with room for squares of the share p_init: try a smaller one")
    attack = SquareAttack(
        classifier(problem),
        norm=art_norm(problem),
        eps=problem.eps,
        max_iter=max_iter,
        p_init=p_init,
        nb_restarts=nb_restarts,
        batch_size=problem.batch_size,
        verbose=False,
    )
    run(problem, attack)
