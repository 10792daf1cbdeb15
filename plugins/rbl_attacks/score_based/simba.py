"""SimBA (Guo, Gardner, You, Wilson & Weinberger, ICML 2019, https://arxiv.org/abs/1905.07121, Algorithm 1)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.score_based.image_windows import ImageShape
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell

Basis = Literal["pixel", "dct"]

LOW_FREQUENCIES = 8
"""The cosine basis begins with the lowest 1/8 of the frequencies of each axis, ..."""
RINGS = 32
"""... and widens by 1/32 of them when these are used up: section 4 of the paper."""


def simba(
    problem: AttackProblem,
    *,
    queries: Annotated[int, Field(ge=2)] = 5000,
    basis: Basis = "pixel",
    step_size: Annotated[float, Field(gt=0)] | None = None,
    loss: str | None = None,
) -> None:
    """One direction of an orthonormal basis at a time, in random order: a step back, then forth; kept if it pays.

    Every input is projected into the region. When the basis is used up, it begins again in the same order.

    queries: forward passes of one sample: the start, the steps, and at last the best input once more.
    basis: `pixel`: single elements; `dct`: cosine waves of one channel, from low to high frequencies.
    step_size: length of one step, in the units of the data (in `series`: of each series' spread); None: 0.2, the
        paper's, for inputs in a range of 1, and eps / 5 where the range is open; in `series` eps, in its l2 eps / 5.
    loss: one of the objective's losses; None: its usual one, whose order is that of the label's probability.
    """
    image = ImageShape.of(tuple(problem.clean.shape[1:]))
    if isinstance(problem.unit, Tensor) and basis == "dct":
        raise SkipCell("simba(basis='dct') is for images: take basis='pixel' for series")
    size = _usual_size(problem) if step_size is None else step_size
    x, order = problem.clean.clone(), _order(problem, image, basis, queries)
    turn, forth = order.new_zeros(len(x), dtype=torch.int64), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    best = _known(problem.loss(x, loss))
    x, order, turn, forth, best = problem.drop_done(x, order, turn, forth, best)
    for _ in range(queries - 2):
        if problem.finished:
            return
        chosen = order.gather(1, turn[:, None] % order.shape[1]).squeeze(1).long()
        length = torch.where(forth, size, -size)
        step = _along(x, image, basis, chosen, length)
        tried = problem.project(x + problem.unit * step)
        reached = _known(problem.loss(tried, loss))
        better = reached > best
        x[better], best[better] = tried[better], reached[better]
        tried_both = better | forth
        turn, forth = turn + tried_both, ~tried_both
        x, order, turn, forth, best = problem.drop_done(x, order, turn, forth, best)
    if not problem.finished:
        problem.submit(x)
        problem.drop_done()


def _usual_size(problem: AttackProblem) -> float:
    """The length of a step."""
    if isinstance(problem.unit, Tensor):
        return problem.eps if problem.norm == "linf" else problem.eps / 5
    return 0.2 * (problem.bounds.width if math.isfinite(problem.bounds.width) else problem.eps)


def _order(problem: AttackProblem, image: ImageShape, basis: Basis, most: int) -> Tensor:
    """Which directions each sample takes in turn, int32 `[A, at most D]`; no more than can be used."""
    key = problem.uniform("simba/order", (image.channels, image.height, image.width))
    if basis == "dct":
        row, column = (_rings(length, key.device) for length in (image.height, image.width))
        key += torch.maximum(row[:, None], column)
    return key.flatten(1).argsort(dim=1, stable=True)[:, :most].int()


def _rings(frequencies: int, device: torch.device) -> Tensor:
    """How often the low frequencies of one axis have been widened when each comes in, `[frequencies]`."""
    first, wider = max(1, frequencies // LOW_FREQUENCIES), max(1, frequencies // RINGS)
    beyond = torch.arange(frequencies, device=device) + 1 - first
    return (beyond / wider).ceil().clamp_(min=0)


def _along(x: Tensor, image: ImageShape, basis: Basis, chosen: Tensor, length: Tensor) -> Tensor:
    """Changes like `x`, each of `length` along the sample's direction."""
    moved = torch.zeros_like(x)
    if basis == "pixel":
        moved.view(len(x), -1).scatter_add_(1, chosen[:, None], length[:, None].to(x.dtype))
        return moved
    channel, frequency = chosen // (image.height * image.width), chosen % (image.height * image.width)
    row = _cosines(image.height, x.device)[frequency // image.width]
    column = _cosines(image.width, x.device)[frequency % image.width]
    planes = moved.view(len(x), image.channels, image.height, image.width)
    planes[torch.arange(len(x), device=x.device), channel] += (row * length[:, None])[:, :, None] * column[:, None]
    return moved


@lru_cache(maxsize=16)
def _cosines(count: int, device: torch.device) -> Tensor:
    """The orthonormal cosine waves (of the inverse DCT-II) over so many points, one a row, `[count, count]`."""
    frequency, point = torch.arange(count, device=device)[:, None], torch.arange(count, device=device) + 0.5
    waves = (math.pi / count * frequency * point).cos() * math.sqrt(2 / count)
    waves[0] = math.sqrt(1 / count)
    return waves


def _known(loss: Tensor) -> Tensor:
    """A loss that is no number is the worst there is, so that whatever comes after it is better."""
    return loss.nan_to_num(float("-inf"), float("inf"), float("-inf"))
