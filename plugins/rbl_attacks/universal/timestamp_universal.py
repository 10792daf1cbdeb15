"""One change of the recorded series for all windows that see it (TUAP, https://arxiv.org/abs/2602.11940).

Windows of a series overlap: attacked one by one, they would see different values at the same time. Here each value of
the series is changed once, along the summed gradient of all windows that it lies in.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.threat_models.masked_region import MaskedRegion
from robustbench_lab.threat_models.series_regions.box import SeriesBox
from robustbench_lab.threat_models.series_regions.recorded import Recorded, places

Count = Annotated[int, Field(ge=1)]


def timestamp_universal(
    problem: AttackProblem,
    *,
    steps: Count = 50,
    step_size: Annotated[float, Field(gt=0)] = 0.1,
    loss: str | None = None,
) -> None:
    """Windows agree on every value that they share, and what is handed in counts for all of them together.

    steps: gradient steps, each on the sum over all windows.
    step_size: of the first step, as a share of eps; it falls to 0 linearly.
    loss: one of the objective's; None: its usual one.
    """
    _check(problem)
    problem.new_search(ascends=False)
    place = places(problem.clean, problem.goal)
    # The change of each value, in its own unit.
    series = problem.clean.new_zeros(int(place.max()) + 1, problem.clean.shape[2])
    reach = problem.eps * problem.unit
    movable = problem.project(problem.clean + reach) > problem.project(problem.clean - reach)
    for step in range(steps):
        x = problem.project(problem.clean + series[place] * problem.unit)
        _, gradient = problem.loss_and_gradient(x, loss, candidate=False)
        # What cannot be changed there, such as a series' empty future, may be in another window, where it is known.
        climb = gradient.nan_to_num_(0, 0, 0) * problem.unit * movable
        summed = torch.zeros_like(series).index_add_(0, place.flatten(), climb.flatten(0, 1))
        size = step_size * problem.eps * (1 - step / steps)
        series = (series + size * summed.sign()).clamp_(-problem.eps, problem.eps)
    problem.submit(problem.project(problem.clean + series[place] * problem.unit), together=True)


def _check(problem: AttackProblem) -> None:
    """SkipCell where what a value may become depends on more than the value itself."""
    region = problem.region.region if isinstance(problem.region, MaskedRegion) else problem.region
    if not isinstance(region, SeriesBox | Recorded) or getattr(problem.threat_model, "last", None) is not None:
        text = "norm='linf', without last, steps, most_channels, smooth and monotone"
        raise SkipCell(f"timestamp-universal changes each value of a series by itself: take series with {text}")
    if "start" not in problem.goal:
        raise SkipCell("timestamp-universal needs to know where windows lie: the targets hold no 'start'")
