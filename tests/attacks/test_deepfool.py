"""DeepFool against closed forms on linear models and against Foolbox."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.minimum_norm.deepfool import deepfool
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L2, Linf

BALLS = {"linf": Linf, "l2": L2}
ORDER = {"linf": math.inf, "l2": 2}
DUAL = {"linf": 1, "l2": 2}
NORMS = list(BALLS)
SAMPLES, DIMENSION = 24, 48


class Linear(nn.Module):
    """K classes with logits W x."""

    def __init__(self, classes: int = 4, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, DIMENSION, generator=generator), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T

    def distances(self, x: Tensor, norm: str) -> Tensor:
        """To the boundary with each other class, `[N, K]`; infinite for the predicted one."""
        logits = self(x)
        best, own = logits.max(1)
        size = torch.linalg.vector_norm(self.weight[None] - self.weight[own][:, None], ord=DUAL[norm], dim=2)
        return ((best[:, None] - logits) / size).scatter(1, own[:, None], math.inf)


class Tanh(nn.Module):
    """A small net with curved boundaries."""

    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(DIMENSION, 30), nn.Tanh(), nn.Linear(30, classes))
        for weight in self.layers.parameters():
            weight.requires_grad_(False).mul_(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x - 0.5)
        return out


def problem_on(
    model: nn.Module,
    clean: Tensor,
    norm: str,
    *,
    bounds: Bounds | None = None,
    objective: Objective | None = None,
    batch_size: int = 10,
) -> AttackProblem:
    objective = objective or Untargeted()
    prediction = model.eval()(clean)
    return AttackProblem(
        ProblemSetting(
            model=model,
            objective=objective,
            threat_model=BALLS[norm](eps=1.0),
            clean=clean,
            goal=objective.prepare(prediction, prediction.argmax(1)),
            open=torch.ones(len(clean), dtype=torch.bool),
            bounds=bounds or Bounds(-100, 100),
            rng=SampleRng.for_samples(0, "deepfool", [str(index) for index in range(len(clean))], torch.device("cpu")),
            batch_size=batch_size,
            minimum_norm=True,
        )
    )


def inputs(*shape: int, seed: int = 1, samples: int = SAMPLES) -> Tensor:
    return torch.rand(samples, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), overshoot=st.sampled_from([0.02, 0.001]))
def test_on_a_linear_model_the_distance_is_the_exact_one_with_the_overshoot(
    norm: str, seed: int, overshoot: float
) -> None:
    model, clean = Linear(seed=seed), inputs(DIMENSION, seed=seed + 1)
    problem = problem_on(model, clean, norm)
    deepfool(problem, overshoot=overshoot)
    exact = model.distances(clean, norm).amin(1)
    assert torch.allclose(problem.nearest(), (1 + overshoot) * exact, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_only_the_candidates_are_looked_at(norm: str) -> None:
    model, clean = Linear(classes=8), inputs(DIMENSION)
    problem = problem_on(model, clean, norm)
    deepfool(problem, candidates=2)
    second = model(clean).argsort(1, descending=True)[:, 1:2]
    exact = model.distances(clean, norm).gather(1, second).squeeze(1)
    assert (problem.nearest() <= 1.021 * exact).all()
    assert problem.counted_model.backward_passes < SAMPLES * 2 * 3


def test_a_sample_beyond_the_boundary_takes_no_further_pass() -> None:
    model, clean = Linear(classes=4), inputs(DIMENSION)
    problem = problem_on(model, clean, "l2")
    deepfool(problem)
    # The ranking, one linearisation with a gradient for each other class, one check.
    assert problem.counted_model.forward_passes == 3 * SAMPLES
    assert problem.counted_model.backward_passes == 3 * SAMPLES


@pytest.mark.parametrize("norm", NORMS)
def test_outcomes_do_not_depend_on_the_batch_size(norm: str) -> None:
    clean = inputs(3, 4, 4)
    one, other = (problem_on(Tanh(), clean, norm, bounds=Bounds(), batch_size=size) for size in (1, SAMPLES))
    deepfool(one)
    deepfool(other)
    assert one.claimed.all()
    assert torch.equal(one.claimed, other.claimed)
    assert torch.allclose(one.candidates, other.candidates, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_a_targeted_objective_reaches_its_goal(norm: str) -> None:
    model, clean = Linear(), inputs(DIMENSION)
    problem = problem_on(model, clean, norm, objective=Targeted(target="least-likely"))
    deepfool(problem)
    assert problem.claimed.all()
    assert (model(problem.candidates).argmax(1) == problem.goal).all()


@pytest.mark.parametrize("norm", NORMS)
def test_bounds_hold_and_clean_inputs_are_kept(norm: str) -> None:
    clean = inputs(2, 3, 8).round()
    problem = problem_on(Tanh(), clean, norm, bounds=Bounds())
    before = clean.clone()
    deepfool(problem, steps=20)
    assert torch.equal(clean, before)
    assert problem.candidates.min() >= 0
    assert problem.candidates.max() <= 1
    assert problem.claimed.any()


class Spoilt(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.net = Tanh()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        if self.what == "no gradient":
            return logits.detach() + 0 * x.flatten(1).sum(1, keepdim=True)
        if self.what == "nan gradient":
            return logits + 0 * (x - x.detach()).abs().sqrt().flatten(1).sum(1, keepdim=True)
        if self.what == "tied logits":
            return torch.cat([logits[:, :1], logits[:, :1]], dim=1) + 1e-3 * x.flatten(1)[:, :2].detach().sign()
        return logits[:, :2]


@pytest.mark.parametrize("what", ["no gradient", "nan gradient", "tied logits", "two classes"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bounds", [Bounds(), Bounds(-math.inf, math.inf)])
def test_bad_models_end_in_finite_candidates(what: str, norm: str, bounds: Bounds) -> None:
    problem = problem_on(Spoilt(what), inputs(3, 4, 4), norm, bounds=bounds)
    deepfool(problem, steps=5)
    assert problem.candidates.isfinite().all()
    assert bool(problem.claimed.any()) == (what == "two classes")


def test_a_model_with_one_class_is_refused_in_one_line() -> None:
    with pytest.raises(SkipCell, match="one class"):
        deepfool(problem_on(Linear(classes=1), inputs(DIMENSION), "l2"))


@pytest.mark.parametrize("norm", NORMS)
def test_distances_are_at_most_those_of_foolbox(norm: str) -> None:
    foolbox: Any = pytest.importorskip("foolbox")
    model, clean = Tanh().eval(), inputs(3, 4, 4, samples=100)
    problem = problem_on(model, clean, norm, bounds=Bounds(), batch_size=100)
    deepfool(problem)
    attack = {"linf": foolbox.attacks.LinfDeepFoolAttack, "l2": foolbox.attacks.L2DeepFoolAttack}[norm]()
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    moved, _, succeeded = attack(wrapped, clean, model(clean).argmax(1), epsilons=None)
    theirs = torch.linalg.vector_norm((moved - clean).flatten(1), ord=ORDER[norm], dim=1)
    assert problem.claimed.sum() >= succeeded.sum()
    assert problem.nearest().median() <= 1.02 * theirs.median()
    assert ((problem.nearest() / theirs)[succeeded] < 1.05).float().mean() > 0.95
