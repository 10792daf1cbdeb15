"""One change of the recorded series for all windows that see it (TUAP, https://arxiv.org/abs/2602.11940).

Windows of a series overlap: attacked one by one, they would see different values at the same time. Here each value of
the series is changed once, along the summed gradient of all windows that it lies in.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.threat_models.masked_region import MaskedRegion
from robustbench_lab.threat_models.series_regions.box import SeriesBox
from robustbench_lab.threat_models.series_regions.channels import history_steps

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
    place, count = _places(problem)
    series = problem.clean.new_zeros(count, problem.clean.shape[2])  # the change of each value, in its own unit
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
    if not isinstance(region, SeriesBox) or getattr(problem.threat_model, "last", None) is not None:
        text = "norm='linf', without last, steps, most_channels, smooth and monotone"
        raise SkipCell(f"timestamp-universal changes each value of a series by itself: take series with {text}")
    if "start" not in problem.goal:
        raise SkipCell("timestamp-universal needs to know where windows lie: the targets hold no 'start'")


def _places(problem: AttackProblem) -> tuple[Tensor, int]:
    """Which value of the recorded series each step of a window is, int64 `[A, L]`, and how many there are."""
    goal, steps = problem.goal, problem.clean.shape[1]
    first = goal["start"] - history_steps(problem.clean, goal)
    when = first[:, None] + torch.arange(steps, device=first.device)
    block = goal.get("block", torch.zeros_like(first))[:, None].expand_as(when)
    steps_of_series = torch.stack([block, when], 2).flatten(0, 1)
    seen, place = steps_of_series.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    return place.reshape(when.shape), len(seen)
