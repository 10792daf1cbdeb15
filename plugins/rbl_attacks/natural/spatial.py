"""Rotation and translation by grid search (Engstrom et al. 2019, https://arxiv.org/abs/1712.02779, section 3)."""

import itertools
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.threat_models.natural import Spatial
from robustbench_lab.threat_models.natural_regions import rotated_and_shifted

Count = Annotated[int, Field(ge=1)]


def spatial(
    problem: AttackProblem,
    *,
    search: Literal["grid", "random"] = "grid",
    rotations: Count = 31,
    translations: Count = 5,
    tries: Count = 10,
) -> None:
    """Every image at every place of a grid, or at some random ones. Sees decisions only.

    The loss has many local maxima in angle and shift, so that gradients find less than a grid does (section 5 of the
    paper).

    search: `grid`, or `random`: the paper's worst of 10.
    rotations: angles of the grid, from one end of the allowed range to the other.
    translations: shifts of the grid in each of both directions.
    tries: random places.
    """
    if search == "random":
        for place in range(tries):
            problem.submit(problem.random_start(place))
            problem.drop_done()
            if problem.finished:
                return
        return
    for degrees, across, down in _grid(problem, rotations, translations):
        angle = problem.clean.new_full((problem.open_samples,), degrees)
        shift = angle.new_tensor([across, down]).expand(len(angle), 2)
        problem.submit(rotated_and_shifted(problem.clean, angle, shift, problem.bounds))
        problem.drop_done()
        if problem.finished:
            return


def _grid(problem: AttackProblem, rotations: int, translations: int) -> list[tuple[float, float, float]]:
    """Degrees and both shifts, the farthest from the clean image first: they break most, and save the others."""
    threat_model = problem.threat_model
    if not isinstance(threat_model, Spatial):
        raise SkipCell("the grid is made of the angles and shifts of the threat model 'spatial'")
    degrees = _spread(threat_model.rotation, rotations)
    shifts = _spread(threat_model.translation, translations)
    places = itertools.product(degrees, shifts, shifts)

    def share(value: float, largest: float) -> float:
        return abs(value) / largest if largest else 0.0

    def distance(place: tuple[float, float, float]) -> float:
        angle, across, down = place
        shift = share(across, threat_model.translation) + share(down, threat_model.translation)
        return share(angle, threat_model.rotation) + shift

    return sorted(places, key=distance, reverse=True)


def _spread(largest: float, count: int) -> list[float]:
    """Numbers at equal distances from `-largest` to `largest`; a single one is `largest`."""
    return np.linspace(-largest, largest, count).tolist() if count > 1 else [largest]
