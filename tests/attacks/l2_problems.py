"""Small models, and problems on them, for the tests of minimum-norm attacks in l2."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective
from robustbench_lab.objectives import Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L2

UNIT = Bounds(0, 1)


class Linear(nn.Module):
    """Two classes with logits (w.(x - middle), 0)."""

    def __init__(self, seed: int, dimension: int = 30, middle: float = 0.5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(dimension, generator=generator), requires_grad=False)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        score = ((x - self.middle).flatten(1) * self.weight).sum(1)
        return torch.stack([score, torch.zeros_like(score)], dim=1)

    def distance(self, x: Tensor) -> Tensor:
        """Of the decision plane, where the bounds are out of reach."""
        return self(x)[:, 0].abs() / self.weight.norm()


class Curved(nn.Module):
    """A small random network with smooth activations."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.GELU(), nn.Linear(32, 5))
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) * 5


class Odd(nn.Module):
    """A model on which a gradient attack has nothing to go by."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).sum(1)
        if self.kind == "zero gradient":
            score = score * 0 + 1
        elif self.kind == "nan":
            score = torch.where(score > score.detach() + 1, score, score * math.nan)
        elif self.kind == "always broken":
            score = score * 0 - 1
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def clean_inputs(seed: int, samples: int = 40, middle: float = 0.5, spread: float = 0.05) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return middle + spread * torch.randn(samples, 30, generator=generator).clamp(-2, 2)


def problem_on(
    model: nn.Module,
    clean: Tensor,
    bounds: Bounds = UNIT,
    objective: Objective | None = None,
    batch_size: int = 100,
    goal: Tensor | None = None,
) -> AttackProblem:
    objective = objective or Untargeted()
    with torch.no_grad():
        prediction = model(clean)
    return AttackProblem(
        ProblemSetting(
            model=model.eval(),
            objective=objective,
            threat_model=L2(eps=1.0),
            clean=clean,
            goal=objective.prepare(prediction, prediction.argmax(1)) if goal is None else goal,
            open=torch.ones(len(clean), dtype=torch.bool),
            bounds=bounds,
            rng=SampleRng.for_samples(0, "l2", [str(index) for index in range(len(clean))], torch.device("cpu")),
            batch_size=batch_size,
            minimum_norm=True,
        )
    )
