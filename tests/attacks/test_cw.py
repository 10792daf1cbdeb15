"""Carlini & Wagner's attack against closed forms on linear models, and against the reference implementation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.minimum_norm.cw import cw
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L2

UNIT = Bounds(0, 1)
seeds = st.integers(0, 10_000)


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
            rng=SampleRng.for_samples(0, "cw", [str(index) for index in range(len(clean))], torch.device("cpu")),
            batch_size=batch_size,
            minimum_norm=True,
        )
    )


@pytest.mark.parametrize("objective", [Untargeted(), Targeted(target="next")])
@settings(max_examples=2, deadline=None)
@given(seed=seeds)
def test_the_distance_on_a_linear_model_is_near_the_exact_one(objective: Objective, seed: int) -> None:
    model, clean = Linear(seed), clean_inputs(seed)
    # Nearer than a step of Adam at its last learning rate nothing can be resolved.
    clean = clean[model.distance(clean) > 0.005]
    problem = problem_on(model, clean, objective=objective)
    cw(problem, steps=300)
    ratio = problem.nearest() / model.distance(clean)
    assert (ratio > 1 - 1e-4).all()
    assert (ratio < 1.05).all()


def test_no_pass_is_spent_on_samples_whose_loss_has_settled() -> None:
    model, clean = Linear(0), clean_inputs(0, samples=20)
    problem = problem_on(model, clean)
    cw(problem, steps=400)
    assert problem.counted_model.backward_passes < 0.7 * 20 * 9 * 400


@pytest.mark.parametrize("bounds", [Bounds(0, 255), Bounds(-1, 1), Bounds(-math.inf, math.inf), Bounds(0, math.inf)])
def test_the_bounds_hold_and_other_ranges_are_searched_as_well(bounds: Bounds) -> None:
    scale = bounds.width if math.isfinite(bounds.width) else 1.0
    middle = bounds.low + scale / 2 if math.isfinite(bounds.low) else 3.0
    model, clean = Linear(5, middle=middle), clean_inputs(5, middle=middle, spread=0.1 * scale)
    problem = problem_on(model, clean, bounds)
    cw(problem)
    assert problem.claimed.all()
    assert problem.candidates.min() >= bounds.low
    assert problem.candidates.max() <= bounds.high
    assert (problem.nearest() / model.distance(clean)).median() < 1.05


def test_a_sample_has_the_same_result_in_every_batch() -> None:
    model, clean = Linear(3), clean_inputs(3)
    whole, single = (problem_on(model, clean, batch_size=size) for size in (100, 1))
    cw(whole, steps=12)
    cw(single, steps=12)
    assert torch.allclose(whole.candidates, single.candidates, atol=1e-6)


@pytest.mark.parametrize("kind", ["zero gradient", "nan", "always broken"])
@pytest.mark.parametrize("bounds", [UNIT, Bounds(-math.inf, math.inf)])
def test_models_without_a_usable_gradient_get_finite_candidates(kind: str, bounds: Bounds) -> None:
    clean = torch.rand(6, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    problem = problem_on(Odd(kind), clean, bounds, batch_size=4, goal=torch.zeros(6, dtype=torch.int64))
    cw(problem, steps=12)
    assert problem.candidates.isfinite().all()
    assert torch.equal(problem.clean, clean)


def test_distances_are_at_most_those_of_the_reference_at_the_same_steps() -> None:
    foolbox = pytest.importorskip("foolbox")
    model = Curved(0).eval()
    clean = torch.rand(48, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.L2CarliniWagnerAttack(steps=100)
    theirs, _, broken = attack(peer, clean, model(clean).argmax(1), epsilons=None)
    problem = problem_on(model, clean)
    cw(problem, steps=100)
    reference = torch.where(broken, (theirs - clean).flatten(1).norm(dim=1), torch.inf)
    assert problem.claimed.all()
    assert float(problem.nearest().median()) <= 1.01 * float(reference.median())
