"""AutoAttack (Croce & Hein, ICML 2020, https://arxiv.org/abs/2003.01690), with the official parameters and no others.

These are `set_version` of https://github.com/fra31/auto-attack, autoattack/autoattack.py. Each attack sees only the
samples that the ones before it have left unbroken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from rbl_attacks.fixed_budget.apgd import apgd
from rbl_attacks.minimum_norm.fab import fab
from rbl_attacks.score_based.square import square
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Untargeted
from robustbench_lab.passes.expectation import RANDOMIZED_EOT
from robustbench_lab.records import Finding, Severity, Share

Version = Literal["standard", "plus", "rand"]
ORDER: dict[Version, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
TARGETS = 9
SUSPECT_SHARE = 0.002
"""Of all samples: where the square attack breaks more than these after the gradient attacks, they had not worked."""


def autoattack(problem: AttackProblem, *, version: Version = "standard") -> None:
    """APGD on two losses, the boundary attack FAB and the random search Square, in turn.

    version: `standard`; `plus`, with five restarts and untargeted attacks besides; `rand` for randomized models: APGD
        alone, on means over 20 forward passes.
    """
    _check(problem, version)
    if problem.finished:
        return
    classes = problem.part(problem.open_positions.new_zeros(1)).logits(problem.clean[:1], candidate=False).shape[1]
    if classes < 2:
        raise SkipCell("autoattack needs a model with at least 2 classes")
    if problem.stage("classes"):
        _note_few_classes(problem, version, classes)
    attacks = _attacks(problem.norm == "l1", version, classes)
    for name in ORDER[version]:
        if problem.finished:
            return
        if problem.stage(name):
            broken = int(problem.claimed.sum())
            attacks[name](problem)
            if name == "square" and version == "standard":
                _note_square(problem, int(problem.claimed.sum()) - broken)


def _check(problem: AttackProblem, version: Version) -> None:
    if not isinstance(problem.objective, Untargeted):
        raise SkipCell("autoattack is untargeted: use the untargeted objective, or apgd for a targeted one")
    if version == "rand" and problem.eot != RANDOMIZED_EOT:
        raise SkipCell(
            f"autoattack(version='rand') takes means over {RANDOMIZED_EOT} passes, not {problem.eot}: "
            f"use the objective untargeted(eot={RANDOMIZED_EOT}), or version='standard' for a deterministic model"
        )
    if version != "rand" and problem.eot != 1:
        raise SkipCell(
            f"autoattack(version='{version}') is for deterministic models, and here each query takes {problem.eot} "
            "passes: use version='rand' for a randomized model, otherwise the objective untargeted(eot=1)"
        )


def _attacks(l1: bool, version: Version, classes: int) -> dict[str, Callable[[AttackProblem], None]]:
    sparse = l1 and version == "standard"
    restarts = 5 if sparse or version == "plus" else 1
    auto_pgd = partial(apgd, steps=100, rho=0.75, multi_eps=sparse)
    targeted = "targeted-dlr" if classes > 3 else "targeted-cw"
    return {
        "apgd-ce": partial(auto_pgd, loss="ce", restarts=restarts),
        "apgd-dlr": partial(auto_pgd, loss="dlr" if classes > 2 else "cw", restarts=restarts),
        "apgd-t": partial(auto_pgd, loss=targeted, targets=5 if sparse else TARGETS, restarts=1),
        "fab": partial(fab, steps=100, restarts=5, targets=None, alpha_max=0.1, eta=1.05, beta=0.9),
        "fab-t": partial(fab, steps=100, restarts=1, targets=TARGETS, alpha_max=0.1, eta=1.05, beta=0.9),
        "square": partial(square, queries=5000, p_init=0.8, restarts=1, rescale=False),
    }


def _note_few_classes(problem: AttackProblem, version: Version, classes: int) -> None:
    text = f"with {classes} classes "
    if classes == 2 or (classes == 3 and version != "rand"):
        text += "there is no targeted DLR loss: " if classes == 3 else "there is no DLR loss: "
        text += "APGD takes the margin in its place"
    elif classes <= TARGETS and version != "rand":
        text += f"there are only {classes - 1} targets, not {TARGETS}"
    else:
        return
    problem.note(Finding("few-classes", Severity.INFO, text))


def _note_square(problem: AttackProblem, broken: int) -> None:
    """The official flag `check_square_sr`."""
    text = "the square attack broke what the gradient attacks had not: their gradients may mislead them"
    share = Share(broken, len(problem.claimed), SUSPECT_SHARE, above=Severity.SUSPECT, below=None)
    problem.note(Finding("square-beats-gradient", Severity.INFO, text, float(broken), share))
