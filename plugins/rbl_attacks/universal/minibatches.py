"""The samples that one perturbation of all is trained on, and those that it is tested on."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.records import Finding, Severity


def folds_of(problem: AttackProblem, folds: int) -> Iterator[tuple[AttackProblem, AttackProblem]]:
    """The samples to train on, and those to test the outcome on: once all on themselves, or each part on the others.

    With several folds every sample counts, and none of them by a perturbation that has seen it. Which way it was is
    noted in the result.
    """
    every = torch.arange(problem.open_samples, device=problem.clean.device)
    if folds == 1:
        text = "tested on the samples that it was trained on; on others it may do less: folds=2 measures that"
        problem.note(Finding("trained-on-its-samples", Severity.INFO, text))
        yield problem, problem
        return
    if problem.open_samples < folds:
        raise SkipCell(f"{folds} folds need as many samples to attack; there are {problem.open_samples}")
    text = f"{folds} perturbations, each tested on the part of the samples that it was not trained on"
    problem.note(Finding("trained-on-other-samples", Severity.INFO, text))
    for fold in range(folds):
        tested = every % folds == fold
        yield problem.part(every[~tested]), problem.part(every[tested])


def minibatches(problem: AttackProblem, steps: int, size: int) -> Iterator[AttackProblem]:
    """`steps` parts of the problem with `size` samples (or all that there are), reshuffled when all were used."""
    size = min(size, problem.open_samples)
    epoch = start = 0
    order = problem.uniform("order/0", ()).argsort()
    for _ in range(steps):
        if start + size > len(order):
            epoch, start = epoch + 1, 0
            order = problem.uniform(f"order/{epoch}", ()).argsort()
        yield problem.part(order[start : start + size])
        start += size
