"""Common corruptions (Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261) as a worst case over kinds."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from rbl_attacks.natural.corruption_kinds import KINDS, corrupted
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell

Kind = Literal[
    "all",
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]
Kinds = Annotated[
    list[Kind], BeforeValidator(lambda value: [value] if isinstance(value, str) else value), Field(min_length=1)
]
VALUES_AT_ONCE = 1 << 22
"""Input values corrupted together, to bound the memory."""


def corruptions(problem: AttackProblem, *, kinds: Kinds = ("all",)) -> None:  # type: ignore[assignment]
    """Each image under each kind of corruption, at the severity that is the budget.

    A sample is robust if it survives every kind named; with a single kind the robust accuracy is the usual accuracy
    under that corruption, of samples that are right without it.

    kinds: one, a list, or `all` 15.
    """
    if problem.clean.ndim != 4 or problem.clean.shape[1] not in (1, 3):
        shape = list(problem.clean.shape)
        raise SkipCell(f"corruptions are for grey or colour images [N, 1 or 3, H, W]; these are {shape}")
    for kind in KINDS if "all" in kinds else kinds:
        for part in _parts(problem):
            # Projected, so that what is no part of the image, such as its padding, stays as it is.
            part.submit(part.project(_corrupted(part, kind)))
        problem.drop_done()
        if problem.finished:
            return


def _corrupted(problem: AttackProblem, kind: str) -> Tensor:
    bounds = problem.bounds
    images = (problem.clean - bounds.low) / bounds.width
    made = corrupted(images, kind, int(problem.eps), problem)
    return made.mul_(bounds.width).add_(bounds.low).clamp_(bounds.low, bounds.high)


def _parts(problem: AttackProblem) -> Iterator[AttackProblem]:
    samples = torch.arange(problem.open_samples, device=problem.clean.device)
    at_once = max(1, VALUES_AT_ONCE // problem.clean[0].numel())
    for start in range(0, len(samples), at_once):
        yield problem.part(samples[start : start + at_once])
