"""Whether a gradient is that of its loss: finite differences along it, before any attack follows it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustbench_lab.contracts import Bounds

CHANGES = (1e-3, 1e-2, 1e-1)
"""How much each step that is tried should change the loss, relative to the loss, but to 1 at least: less drowns in
rounding."""
FARTHEST = 0.05
"""Root mean square of a step, in units of the data's range, beyond which a gradient says nothing of it."""
LEAST, MOST = 0.5, 2.0
"""Of the foretold change: what one of the steps must bring, at least and at most."""


def finite_differences_agree(
    loss: Callable[[Tensor], Tensor], x: Tensor, before: Tensor, gradient: Tensor, bounds: Bounds
) -> tuple[Tensor, Tensor]:
    """For which samples the loss rises as the gradient foretells, and for which that can be told; bool `[N]` each.

    It cannot be told where no step that is small changes the loss by enough, nor of a loss near 0: the cross-entropy of
    a confident model is no straight line even there.

    loss: inputs `[N, ...]` to `[N]`. before `[N]` and gradient `[N, ...]` are those at x. Steps stay within the bounds.
    """
    agrees = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    told = agrees.clone()
    outwards = ((x <= bounds.low) & (gradient < 0)) | ((x >= bounds.high) & (gradient > 0))
    way = torch.where(outwards, 0, gradient)
    steepness = _sum(way.double().square()).clamp_min(1e-30)
    unit = before.abs().clamp_min(1).double()
    for change in CHANGES:
        length = (change * unit / steepness).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        moved = (x + way * length).clamp(bounds.low, bounds.high)
        step = (moved - x).double()
        foretold = _sum(gradient * step)
        near = (_sum(step.square()) / x[0].numel()).sqrt() <= FARTHEST * _spread(x, bounds)
        tells = near & (foretold > LEAST * change * unit) & (before.abs() > 2 * change * unit)
        rise = (loss(moved) - before).double()
        told |= tells
        agrees |= tells & (rise >= LEAST * foretold) & (rise <= MOST * foretold)
    return agrees, told


def _sum(values: Tensor) -> Tensor:
    """Of each sample."""
    return values.flatten(1).sum(1)


def _spread(x: Tensor, bounds: Bounds) -> float:
    """Width of the data's range; where nothing bounds it, their standard deviation."""
    width = bounds.high - bounds.low
    return width if width < float("inf") else float(x.std())
