"""Random noise: the sanity baseline. An attack that does worse than this has not worked."""

from typing import Annotated

from pydantic import Field

from robustbench_lab.attack_problem import AttackProblem


def noise(problem: AttackProblem, *, repeats: Annotated[int, Field(ge=1)] = 10) -> None:
    """Random points of the region.

    repeats: points tried for each sample.
    """
    for repeat in range(repeats):
        problem.submit(problem.random_start(repeat))
        problem.drop_done()
        if problem.finished:
            return
