"""Foolbox's gradient attacks that look for the nearest adversarial input. Defaults are Foolbox's own.

Where Foolbox's own 9 times 10000 steps take minutes, the number of steps has no default.
"""

from typing import Annotated, Any, Literal

import foolbox
from pydantic import Field

from rbl_foolbox.running import run, run_from_noise, untargeted_only
from robustbench_lab.attack_problem import AttackProblem

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0)]


def l2_deepfool(
    problem: AttackProblem,
    *,
    steps: Count = 50,
    candidates: Annotated[int, Field(ge=2)] | None = 10,
    overshoot: Share = 0.02,
    loss: Literal["logits", "crossentropy"] = "logits",
) -> None:
    """`foolbox.attacks.L2DeepFoolAttack`."""
    untargeted_only(problem, "foolbox:L2DeepFoolAttack")
    run(
        problem,
        foolbox.attacks.L2DeepFoolAttack(steps=steps, candidates=candidates, overshoot=overshoot, loss=loss),
    )


def linf_deepfool(
    problem: AttackProblem,
    *,
    steps: Count = 50,
    candidates: Annotated[int, Field(ge=2)] | None = 10,
    overshoot: Share = 0.02,
    loss: Literal["logits", "crossentropy"] = "logits",
) -> None:
    """`foolbox.attacks.LinfDeepFoolAttack`."""
    untargeted_only(problem, "foolbox:LinfDeepFoolAttack")
    run(
        problem,
        foolbox.attacks.LinfDeepFoolAttack(steps=steps, candidates=candidates, overshoot=overshoot, loss=loss),
    )


def l2_carlini_wagner(
    problem: AttackProblem,
    *,
    steps: Count,
    binary_search_steps: Count = 9,
    stepsize: Positive = 1e-2,
    confidence: Share = 0.0,
    initial_const: Positive = 1e-3,
    abort_early: bool = True,
) -> None:
    """`foolbox.attacks.L2CarliniWagnerAttack`; Foolbox's own number of steps is 10000."""
    run(
        problem,
        foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=binary_search_steps,
            steps=steps,
            stepsize=stepsize,
            confidence=confidence,
            initial_const=initial_const,
            abort_early=abort_early,
        ),
    )


def ead(
    problem: AttackProblem,
    *,
    steps: Count,
    binary_search_steps: Count = 9,
    initial_stepsize: Positive = 1e-2,
    confidence: Share = 0.0,
    initial_const: Positive = 1e-3,
    regularization: Share = 1e-2,
    decision_rule: Literal["EN", "L1"] = "EN",
    abort_early: bool = True,
) -> None:
    """`foolbox.attacks.EADAttack`; Foolbox's own number of steps is 10000."""
    run(
        problem,
        foolbox.attacks.EADAttack(
            binary_search_steps=binary_search_steps,
            steps=steps,
            initial_stepsize=initial_stepsize,
            confidence=confidence,
            initial_const=initial_const,
            regularization=regularization,
            decision_rule=decision_rule,
            abort_early=abort_early,
        ),
    )


def ddn(problem: AttackProblem, *, init_epsilon: Positive = 1.0, steps: Count = 100, gamma: Positive = 0.05) -> None:
    """`foolbox.attacks.DDNAttack`."""
    run(problem, foolbox.attacks.DDNAttack(init_epsilon=init_epsilon, steps=steps, gamma=gamma))


def l0_fmn(
    problem: AttackProblem,
    *,
    steps: Count = 100,
    max_stepsize: Positive = 1.0,
    min_stepsize: Positive | None = None,
    gamma: Positive = 0.05,
) -> None:
    """`foolbox.attacks.L0FMNAttack`."""
    run(problem, foolbox.attacks.L0FMNAttack(**_fmn(steps, max_stepsize, min_stepsize, gamma)))


def l1_fmn(
    problem: AttackProblem,
    *,
    steps: Count = 100,
    max_stepsize: Positive = 1.0,
    min_stepsize: Positive | None = None,
    gamma: Positive = 0.05,
) -> None:
    """`foolbox.attacks.L1FMNAttack`."""
    run(problem, foolbox.attacks.L1FMNAttack(**_fmn(steps, max_stepsize, min_stepsize, gamma)))


def brendel_bethge(
    problem: AttackProblem,
    *,
    steps: Count,
    overshoot: Positive = 1.1,
    lr: Positive = 1e-3,
    lr_decay: Positive = 0.5,
    lr_num_decay: Count = 20,
    momentum: Share = 0.8,
    binary_search_steps: Count = 10,
) -> None:
    """`foolbox.attacks.L2BrendelBethgeAttack` and its like, by the norm; Foolbox's own number of steps is 1000."""
    attacks = {
        "l0": foolbox.attacks.L0BrendelBethgeAttack,
        "l1": foolbox.attacks.L1BrendelBethgeAttack,
        "l2": foolbox.attacks.L2BrendelBethgeAttack,
        "linf": foolbox.attacks.LinfinityBrendelBethgeAttack,
    }
    attack = attacks[problem.norm or "l2"](
        steps=steps,
        overshoot=overshoot,
        lr=lr,
        lr_decay=lr_decay,
        lr_num_decay=lr_num_decay,
        momentum=momentum,
        binary_search_steps=binary_search_steps,
    )
    run_from_noise(problem, attack, problem.batch_size)


def _fmn(steps: int, max_stepsize: float, min_stepsize: float | None, gamma: float) -> dict[str, Any]:
    return {"steps": steps, "max_stepsize": max_stepsize, "min_stepsize": min_stepsize, "gamma": gamma}
