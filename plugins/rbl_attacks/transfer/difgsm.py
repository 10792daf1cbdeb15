"""DI2-FGSM: diverse inputs (Xie et al., CVPR 2019, https://arxiv.org/abs/1803.06978)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.transfer.momentum import Count, Decay, Size, accumulated, ascend, step_size_or_default
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell


def difgsm(
    problem: AttackProblem,
    *,
    steps: Count = 10,
    step_size: Size | None = None,
    decay: Decay = 0.0,
    resize_rate: Annotated[float, Field(gt=0, lt=1)] = 0.9,
    diversity_prob: Annotated[float, Field(ge=0, le=1)] = 0.5,
    loss: str | None = None,
) -> None:
    """Steps along gradients taken at images that are shrunk and padded at random (Algorithm 1).

    A changed image lies outside the ball, so an iterate is a candidate only where it was left as it is; the last one
    is handed in. The paper pads to a larger image than the model's and draws once for a whole batch; here the image
    keeps its size, as in torchattacks, and every sample has its own numbers.

    steps: gradient steps.
    step_size: in the units of eps; None: eps / steps.
    decay: what is kept of the accumulated gradient in a step; 0: DI2-FGSM; 1: M-DI2-FGSM.
    resize_rate: the smallest size, as a share of the image's.
    diversity_prob: the probability that an image is changed in a step.
    loss: one of the objective's losses; None: its usual one.
    """
    if problem.clean.ndim != 4:
        raise SkipCell(f"difgsm resizes images: it needs inputs [N, C, H, W], not {problem.clean.ndim} dimensions")
    size = step_size_or_default(problem, step_size, steps)
    black = problem.bounds.low if math.isfinite(problem.bounds.low) else 0.0
    x, velocity = problem.clean.clone(), torch.zeros_like(problem.clean)
    problem.new_search(ascends=False)
    for step in range(steps):
        numbers = problem.uniform(f"diversity/{step}", (4,))
        unchanged = numbers[:, 0] >= diversity_prob
        changed = (~unchanged).nonzero().squeeze(1)
        change = ShrinkAndPad.random(numbers[changed, 1:], (x.shape[2], x.shape[3]), resize_rate)
        seen = x.index_copy(0, changed, change.apply(x[changed] - black) + black)
        _, gradient = problem.loss_and_gradient(seen, loss, candidate=unchanged)
        gradient.index_copy_(0, changed, change.pull_back(gradient[changed]))
        x, velocity, gradient = problem.drop_done(x, velocity, gradient)
        if problem.finished:
            return
        velocity = accumulated(problem, velocity, gradient, decay)
        x = ascend(problem, x, velocity, size)
    problem.submit(x)


@dataclass(frozen=True)
class ShrinkAndPad:
    """A bilinear resize to a smaller size, put somewhere on a black image of the old size; for each sample another.

    It is linear and works on rows and columns apart: two matrices for each sample, whose transposes pull a gradient
    back. So one product serves the batch, although the sizes differ.
    """

    rows: Tensor
    """`[A, H, H]`: new rows from old ones."""
    columns: Tensor
    """`[A, W, W]`."""

    @classmethod
    def random(cls, numbers: Tensor, shape: tuple[int, int], smallest_share: float) -> ShrinkAndPad:
        """From three uniform numbers for each sample, `[A, 3]`: the size, the place from the top and from the left.

        shape: height and width. smallest_share: the smallest size, as a share of these.
        """
        matrices = []
        for length, place in zip(shape, (numbers[:, 1], numbers[:, 2]), strict=True):
            smallest = max(1, int(length * smallest_share))
            new = smallest + (numbers[:, 0] * (length - smallest)).floor()
            offset = (place * (length - new + 1)).floor()
            matrices.append(_resampling(length, new, offset))
        return cls(*matrices)

    def apply(self, images: Tensor) -> Tensor:
        """`[A, C, H, W]` to the same shape."""
        return torch.einsum("nih,nchw,njw->ncij", self.rows, images, self.columns)

    def pull_back(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the image, from that with respect to the result, `[A, C, H, W]`."""
        return torch.einsum("nih,ncij,njw->nchw", self.rows, gradient, self.columns)


def _resampling(length: int, new: Tensor, offset: Tensor) -> Tensor:
    """Matrices `[A, length, length]` that resize a line to `new` points `[A]` and put them at `offset` `[A]`.

    Bilinear with half-pixel centres (`align_corners=False`): a point takes its two neighbours' values by nearness.
    """
    old = torch.arange(length, dtype=new.dtype, device=new.device)
    point = old - offset[:, None]
    inside = (point >= 0) & (point < new[:, None])
    source = ((point + 0.5) * (length / new[:, None]) - 0.5).clamp(0, length - 1)
    nearness = (1 - (source[:, :, None] - old).abs()).clamp_(min=0)
    return nearness * inside[:, :, None]
