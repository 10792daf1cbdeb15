"""How an attack of ART is run on an attack problem."""

import numpy as np
import torch
from art.attacks import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Targeted, Untargeted

ART_NORMS = {"linf": np.inf, "l2": 2, "l1": 1}


def run(problem: AttackProblem, attack: EvasionAttack) -> None:
    """Run an attack on the open samples, and hand its results to the audit."""
    goal = functional.one_hot(problem.goal, attack.estimator.nb_classes)
    made = attack.generate(x=problem.clean.cpu().numpy(), y=goal.cpu().numpy())
    problem.submit(torch.from_numpy(made).to(problem.clean))


def targeted(problem: AttackProblem) -> bool:
    """Whether the goal is a class to reach; SkipCell where the objective is unknown to ART."""
    if not isinstance(problem.objective, Untargeted | Targeted):
        raise SkipCell("ART's attacks know the objectives untargeted and targeted only")
    return isinstance(problem.objective, Targeted)


def art_norm(problem: AttackProblem) -> float:
    """The problem's norm, as ART calls it."""
    return ART_NORMS[problem.norm or "linf"]


def classifier(problem: AttackProblem, *, probabilities: bool = False) -> PyTorchClassifier:
    """The counted model for ART.

    probabilities: whether it gives probabilities, which a few attacks ask for, and not logits.
    """
    with torch.inference_mode():
        classes = problem.counted_model.model(problem.clean[:1]).shape[1]
    return PyTorchClassifier(
        model=_Adapted(problem.counted_model, problem.clean.dtype, probabilities),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(problem.clean.shape[1:]),
        nb_classes=classes,
        clip_values=(problem.bounds.low, problem.bounds.high),
        device_type="gpu" if problem.clean.is_cuda else "cpu",
    )


class _Adapted(nn.Module):
    """Takes whatever float type ART hands in: several of its attacks compute in float64, which no model expects."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, probabilities: bool) -> None:
        super().__init__()
        self.model, self.dtype, self.probabilities = model, dtype, probabilities
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.to(self.dtype))
        return logits.softmax(1) if self.probabilities else logits
