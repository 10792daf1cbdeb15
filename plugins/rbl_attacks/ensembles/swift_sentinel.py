"""A search without gradients, to find out whether the gradients can be trusted."""

from __future__ import annotations

import torch
from torch import Tensor

from rbl_attacks.score_based.square import square
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.records import Finding, Severity

QUERIES = (100, 500, 5000)
"""Of each stage; the last is AutoAttack's."""
SHARE, LEAST = 8, 32
"""The first stage looks at one sample in eight, and at 32 at least."""
RARE = 0.01
"""A stage that breaks a smaller share of its samples is the last one."""


def check_without_gradients(problem: AttackProblem, left: Tensor) -> None:
    """Square Attack on a few samples; where it breaks what the gradients did not, on all, and with more queries.

    left: `[A]`, how far each sample is from breaking; near and far ones are looked at.
    """
    asked = _spread(left)
    found = 0
    for queries in QUERIES:
        before = problem.open_samples
        square(problem.part(asked), queries=queries, rescale=False)
        problem.drop_done()
        broken = before - problem.open_samples
        found += broken
        if problem.finished or broken <= RARE * len(asked):
            break
        asked = torch.arange(problem.open_samples, device=asked.device)
    if found:
        text = "random search without gradients broke what gradients did not: the model may hide its gradients"
        problem.note(Finding("black-box-breaks", Severity.SUSPECT, text, float(found)))


def _spread(left: Tensor) -> Tensor:
    """Positions evenly spaced from the nearest to the farthest sample, int64 `[B]`."""
    count = len(left)
    wanted = min(count, max(LEAST, count // SHARE))
    places = torch.linspace(0, count - 1, wanted, device=left.device).round().long()
    return left.argsort(stable=True)[places]
