"""Whether a usable gradient reaches the input, and whether it is that of the loss: before any attack follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Access, Bounds, Objective, Samples
from robustbench_lab.errors import describe_error
from robustbench_lab.passes.expectation import detached
from robustbench_lab.records import Finding, Severity
from robustbench_lab.sample_trees import cut

FEW = 8
"""Samples that are looked at."""
FEWEST_TOLD = 4
"""Samples of which it can be told whether their gradient is right, for a finding."""
CHANGES = (1e-3, 1e-2, 1e-1)
"""How much each step that is tried should change the loss, relative to the loss, but to 1 at least: less drowns in
rounding."""
FARTHEST = 0.05
"""Root mean square of a step, in units of the data's range, beyond which a gradient says nothing of it."""
LEAST, MOST = 0.5, 2.0
"""Of the foretold change: what one of the steps must bring, at least and at most."""


@dataclass(frozen=True)
class _Look:
    """At the gradients of some samples."""

    finite: bool
    zero: bool
    told: int = 0
    """Samples of which it can be told whether their gradient is right."""
    wrong: int = 0


def check_gradient(
    model: nn.Module,
    samples: Samples,
    objective: Objective,
    access: Access,
    batch_size: int,
    *,
    exact_within: Bounds | None = None,
) -> list[Finding]:
    """What is wrong with the gradient to the input; asked for attacks that need one.

    exact_within: the data's bounds, where the gradient claims to be exact; None: an approximation, or random.
    """
    if access is not Access.GRADIENTS:
        return []
    count = min(FEW, len(samples.inputs))
    ends = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    parts = [Samples(samples.inputs[start:end], cut(samples.targets, start, end)) for start, end in ends]
    try:
        looks = [_look(model, part, objective, exact_within) for part in parts]
    except RuntimeError as error:
        way = "use a score- or decision-based attack, or BPDA"
        return [
            Finding("no-gradient", Severity.FATAL, f"no gradient reaches the input ({describe_error(error)}): {way}")
        ]
    told, wrong = sum(one.told for one in looks), sum(one.wrong for one in looks)
    if not all(one.finite for one in looks):
        return [Finding("bad-gradient", Severity.SUSPECT, "the gradient at clean inputs is NaN or infinite")]
    if all(one.zero for one in looks):
        text = "the gradient at clean inputs is exactly zero: the model may mask it"
        return [Finding("zero-gradient-at-clean", Severity.SUSPECT, text)]
    if told >= FEWEST_TOLD and 2 * wrong > told:
        text = f"on {wrong} of {told} samples a small step along the gradient does not change the loss as it foretells"
        return [Finding("wrong-gradient", Severity.SUSPECT, f"{text}: an attack that follows it may find little")]
    return []


def _look(model: nn.Module, samples: Samples, objective: Objective, exact_within: Bounds | None) -> _Look:
    """Raises RuntimeError where there is no gradient."""
    leaf = samples.inputs.clone().requires_grad_()
    with torch.enable_grad():
        prediction = model(leaf)
        with torch.no_grad():
            goal = objective.prepare(detached(prediction), samples.targets)
        losses = objective.loss(None, prediction, goal)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    finite, zero = bool(gradient.isfinite().all()), not bool(gradient.any())
    if exact_within is None:
        return _Look(finite, zero)

    @torch.no_grad()
    def loss(x: Tensor) -> Tensor:
        return objective.loss(None, model(x), goal)

    agrees, told = finite_differences_agree(loss, samples.inputs, losses.detach(), gradient, exact_within)
    return _Look(finite, zero, int(told.sum()), int((told & ~agrees).sum()))


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
