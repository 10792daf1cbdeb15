"""An attack at work: it hands its candidates to the problem, and is judged on the model as it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from robustbench_lab.errors import AttackContractError

Mark = tuple[bool, list[float]]


def run_attack(attack: Callable[[Any], object], problem: Any, models: Iterable[nn.Module]) -> None:
    """Raises AttackContractError where the attack changes one of the models, or returns what it should hand in."""
    marks = [(one, model_mark(one)) for one in models]
    returned = attack(problem)
    for model, mark in marks:
        check_unchanged(model, mark)
    if returned is not None:
        kind = type(returned).__name__
        raise AttackContractError(f"the attack returned a {kind}: hand candidates in with problem.submit(x)")


def model_mark(model: nn.Module) -> Mark:
    """Whether any part is in training mode, and the sum of each parameter. It costs one read of the parameters."""
    sums = [one.detach().sum(dtype=torch.float64) for one in model.parameters() if one.is_floating_point()]
    training = any(module.training for module in model.modules())
    return training, torch.stack([one.to(sums[0].device) for one in sums]).tolist() if sums else []


def check_unchanged(model: nn.Module, before: Mark) -> None:
    """Raises AttackContractError where an attack has changed a model since its mark was taken."""
    training, sums = model_mark(model)
    if training != before[0]:
        raise AttackContractError("the attack put the model in training mode: let it leave the mode as it is")
    if sums != before[1]:
        raise AttackContractError("the attack changed the weights of the model: let it work on a copy (copy.deepcopy)")
