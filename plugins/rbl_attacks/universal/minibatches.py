"""The samples that one perturbation of all is trained on, some at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

from robustbench_lab.attack_problem import AttackProblem


def minibatches(problem: AttackProblem, steps: int, size: int, share: float = 1.0) -> Iterator[AttackProblem]:
    """`steps` parts of the problem with `size` samples (or all that there are), reshuffled when all were used.

    share: of the open samples, the first ones, from which the parts are taken.
    """
    training = max(1, math.ceil(share * problem.open_samples))
    size = min(size, training)
    epoch = 0
    order = problem.uniform("order/0", ())[:training].argsort()
    start = 0
    for _ in range(steps):
        if start + size > training:
            epoch, start = epoch + 1, 0
            order = problem.uniform(f"order/{epoch}", ())[:training].argsort()
        yield problem.part(order[start : start + size])
        start += size
