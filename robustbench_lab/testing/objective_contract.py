"""What every objective for classifiers must keep to. Shipped for authors of plugins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from robustbench_lab.contracts import JudgesAtOnce, Objective, judges_at_once, lacking
from robustbench_lab.sample_trees import cut

SAMPLES, CLASSES = 8, 5
STEPS = 300


def check_objective(objective: Objective) -> list[str]:
    """What is wrong with an objective on some logits whose classes are all right, a line each."""
    if lacks := lacking(objective, Objective):
        return [lacks]
    logits = torch.randn(SAMPLES, CLASSES, generator=torch.Generator().manual_seed(0))
    goal = objective.prepare(logits, logits.argmax(1))
    wrong = list(_wrong_forms(objective, logits, goal))
    return wrong or list(_wrong_meanings(objective, logits, goal))


def _wrong_forms(objective: Objective, logits: Tensor, goal: Any) -> Iterator[str]:
    for name, kind in (("loss", "a float"), ("damage", "a float"), ("succeeded", "a bool")):
        value = _asked(objective, name, logits, goal)
        form = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        if not isinstance(value, Tensor) or value.shape != (SAMPLES,):
            yield f"{name} must return {kind} for each sample, [{SAMPLES}], not {form}"
        elif (value.dtype is torch.bool) != (name == "succeeded"):
            yield f"{name} must return {kind} for each sample, not {form}"
        elif value.is_floating_point() and not bool(value.isfinite().all()):
            yield f"{name} is NaN or infinite on ordinary logits"
        elif not torch.allclose(_asked(objective, name, logits[2:3], cut(goal, 2, 3)).float(), value[2:3].float()):
            yield f"{name} of a sample depends on the others in its batch"


def _wrong_meanings(objective: Objective, logits: Tensor, goal: Any) -> Iterator[str]:
    if bool(objective.succeeded(logits, goal).all()):
        yield "succeeded counts every clean prediction as a success"
    x = logits.clone()
    for _ in range(STEPS):
        leaf = x.clone().requires_grad_()
        loss = objective.loss(None, leaf, goal)
        if not loss.requires_grad:
            yield "no gradient of its loss reaches the prediction"
            return
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        x = x + 0.1 * gradient.sign()
    if judges_at_once(objective) and not all(_judged_alike(objective, one, goal) for one in (logits, x)):
        yield "judged must return what succeeded and damage do"
    if not bool(objective.succeeded(x, goal).any()):
        yield "raising its loss leads to no success: attacks maximise it, so look at its sign"
    elif bool((objective.damage(x, goal) < objective.damage(logits, goal)).all()):
        yield "damage falls where its loss rises: larger must be worse for the model"


def _judged_alike(objective: JudgesAtOnce, logits: Tensor, goal: Any) -> bool:
    success, damage = objective.judged(logits, goal)
    return torch.equal(success, objective.succeeded(logits, goal)) and torch.equal(
        damage, objective.damage(logits, goal)
    )


def _asked(objective: Objective, name: str, logits: Tensor, goal: Any) -> Any:
    return objective.loss(None, logits, goal) if name == "loss" else getattr(objective, name)(logits, goal)
