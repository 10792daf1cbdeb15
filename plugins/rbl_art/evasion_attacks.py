"""ART's evasion attacks as functions of an attack problem. Defaults are ART's own, but for budgets, which are ours."""

from typing import Annotated

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from pydantic import Field
from torch import nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Targeted, Untargeted

ART_NORMS = {"linf": np.inf, "l2": 2, "l1": 1}
Count = Annotated[int, Field(ge=1)]


def projected_gradient_descent(
    problem: AttackProblem,
    *,
    eps_step: Annotated[float, Field(gt=0)] | None = None,
    max_iter: Count = 100,
    num_random_init: Annotated[int, Field(ge=0)] = 0,
) -> None:
    """`art.attacks.evasion.ProjectedGradientDescent`.

    eps_step: None: 2.5 * eps / max_iter. ART's own default of 0.1 is larger than most budgets, and ART refuses it then.
    """
    attack = ProjectedGradientDescent(
        _classifier(problem),
        norm=ART_NORMS[problem.norm or "linf"],
        eps=problem.eps,
        eps_step=2.5 * problem.eps / max_iter if eps_step is None else eps_step,
        max_iter=max_iter,
        num_random_init=num_random_init,
        targeted=_targeted(problem),
        batch_size=problem.batch_size,
        verbose=False,
    )
    made = attack.generate(x=problem.clean.cpu().numpy(), y=problem.goal.cpu().numpy())
    problem.submit(torch.from_numpy(made).to(problem.clean))


def _targeted(problem: AttackProblem) -> bool:
    if not isinstance(problem.objective, Untargeted | Targeted):
        raise SkipCell("ART's attacks know the objectives untargeted and targeted only")
    return isinstance(problem.objective, Targeted)


def _classifier(problem: AttackProblem) -> PyTorchClassifier:
    with torch.inference_mode():
        classes = problem.counted_model.model(problem.clean[:1]).shape[1]
    return PyTorchClassifier(
        model=problem.counted_model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(problem.clean.shape[1:]),
        nb_classes=classes,
        clip_values=(problem.bounds.low, problem.bounds.high),
        device_type="gpu" if problem.clean.is_cuda else "cpu",
    )
