"""ART's attacks by scores or decisions that know no budget. Defaults are ART's own.

Where ART's own budget takes minutes a sample, the number of steps has no default.
"""

from typing import Annotated, Literal

from art.attacks.evasion import BoundaryAttack, HopSkipJump, SignOPTAttack, SimBA
from pydantic import Field

from rbl_art.running import art_norm, classifier, run, targeted
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


def hop_skip_jump(
    problem: AttackProblem,
    *,
    max_iter: Count,
    max_eval: Count = 10000,
    init_eval: Count = 100,
    init_size: Count = 100,
) -> None:
    """`art.attacks.evasion.HopSkipJump`, in the norm of the threat model; ART's own `max_iter` is 50."""
    attack = HopSkipJump(
        classifier(problem),
        batch_size=problem.batch_size,
        targeted=targeted(problem),
        norm=art_norm(problem),
        max_iter=max_iter,
        max_eval=max_eval,
        init_eval=init_eval,
        init_size=init_size,
        verbose=False,
    )
    run(problem, attack)


def boundary_attack(
    problem: AttackProblem,
    *,
    max_iter: Count,
    delta: Positive = 0.01,
    epsilon: Positive = 0.01,
    step_adapt: Annotated[float, Field(gt=0, lt=1)] = 0.667,
    num_trial: Count = 25,
    sample_size: Count = 20,
    init_size: Count = 100,
    min_epsilon: Annotated[float, Field(ge=0)] = 0.0,
) -> None:
    """`art.attacks.evasion.BoundaryAttack`; ART's own `max_iter` is 5000."""
    attack = BoundaryAttack(
        classifier(problem),
        batch_size=problem.batch_size,
        targeted=targeted(problem),
        delta=delta,
        epsilon=epsilon,
        step_adapt=step_adapt,
        max_iter=max_iter,
        num_trial=num_trial,
        sample_size=sample_size,
        init_size=init_size,
        min_epsilon=min_epsilon,
        verbose=False,
    )
    run(problem, attack)


def sign_opt_attack(
    problem: AttackProblem,
    *,
    query_limit: Count,
    max_iter: Count = 1000,
    epsilon: Positive = 0.001,
    num_trial: Count = 100,
    k: Count = 200,
    alpha: Positive = 0.2,
    beta: Positive = 0.001,
) -> None:
    """`art.attacks.evasion.SignOPTAttack`; ART's own `query_limit` is 20000."""
    if targeted(problem):
        raise SkipCell("art:SignOPTAttack needs a starting point of the target class: untargeted only")
    model = classifier(problem)
    if model.nb_classes == 2:
        raise SkipCell("art:SignOPTAttack takes two classes for a classifier with a single output, and refuses")
    attack = SignOPTAttack(
        model,
        targeted=False,
        epsilon=epsilon,
        num_trial=num_trial,
        max_iter=max_iter,
        query_limit=query_limit,
        k=k,
        alpha=alpha,
        beta=beta,
        batch_size=problem.batch_size,
        verbose=False,
    )
    run(problem, attack)


def simba(
    problem: AttackProblem,
    *,
    attack: Literal["dct", "px"] = "dct",
    max_iter: Count = 3000,
    order: Literal["random", "diag"] = "random",
    epsilon: Positive = 0.1,
    freq_dim: Count = 4,
    stride: Count = 1,
) -> None:
    """`art.attacks.evasion.SimBA`."""
    shape = problem.clean.shape[2:]
    if len(shape) != 2 or ((attack == "dct" or order == "diag") and shape[0] != shape[1]):
        raise SkipCell("art:SimBA needs square images; attack='px', order='random' takes any images")
    made = SimBA(
        classifier(problem, probabilities=True),
        attack=attack,
        max_iter=max_iter,
        order=order,
        epsilon=epsilon,
        freq_dim=freq_dim,
        stride=stride,
        targeted=targeted(problem),
        verbose=False,
    )
    run(problem, made)
