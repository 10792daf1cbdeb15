"""In which order swift aims at the wrong classes."""

from __future__ import annotations

import torch
from torch import Tensor

from rbl_attacks.ensembles.swift_climb import lead_of_target
from rbl_attacks.ensembles.swift_steps import direction
from robustbench_lab.attack_problem import AttackProblem

CLASSES = 9
"""Wrong classes that are tried, those of the largest logits: as many as AutoAttack aims at."""


def rank_classes(problem: AttackProblem) -> Tensor:
    """Wrong classes, the most promising first: int64 `[N, M]`, 0 for samples that are not open any more.

    One step of the whole budget is made towards each class, and the classes are ranked by how far they lead the label
    then. In comparison MALT (Melamed et al., NeurIPS 2024, https://arxiv.org/abs/2407.02240) ranks by the distance on
    the linearised network, without trying; on networks whose outputs saturate that misleads. The steps are candidates
    as well. Takes M + 2 forward and M + 1 backward passes a sample.
    """
    everything = torch.arange(problem.open_samples, device=problem.clean.device)
    at_once = max(1, problem.batch_size // CLASSES)  # M + 1 gradients of each sample are in memory together
    ranked: Tensor | None = None
    for index in torch.split(everything, at_once):
        part = problem.part(index)
        classes = _largest_wrong(part)
        lead = _lead_after_a_step(part, classes)
        if ranked is None:
            ranked = classes.new_zeros(len(problem.candidates), classes.shape[1])
        ranked[problem.open_positions[index]] = classes.gather(1, lead.argsort(dim=1, descending=True, stable=True))
    problem.drop_done()
    assert ranked is not None  # noqa: S101 (there is an open sample)
    return ranked


def _largest_wrong(problem: AttackProblem) -> Tensor:
    """The wrong classes of the largest logits at the clean inputs, `[A, M]`."""
    wrong = problem.logits(problem.clean).scatter(1, problem.goal[:, None], float("-inf"))
    return wrong.topk(min(CLASSES, wrong.shape[1] - 1), dim=1).indices


def _lead_after_a_step(problem: AttackProblem, classes: Tensor) -> Tensor:
    """The lead of each class after one step towards it, `[A, M]`; -inf where the sample was broken before."""
    lead = torch.full(classes.shape, float("-inf"), device=classes.device)
    aims = torch.cat([problem.goal[:, None], classes], dim=1)
    _, jacobian = problem.logits_and_jacobian(problem.clean, aims)
    rows = torch.arange(len(classes), device=classes.device)
    for rank in range(classes.shape[1]):
        step = direction(problem, jacobian[:, 1 + rank] - jacobian[:, 0], problem.clean, progress=0.5)
        logits = problem.logits(problem.project(torch.add(problem.clean, step, alpha=problem.eps)))
        lead[rows, rank] = lead_of_target(logits, problem.goal, classes[rows, rank]).nan_to_num(float("-inf"))
        rows, jacobian = problem.drop_done(rows, jacobian)
        if problem.finished:
            break
    return lead
