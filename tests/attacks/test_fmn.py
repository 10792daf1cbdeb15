"""FMN against closed forms on linear models, its projections against their definition, and the authors' code."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.minimum_norm.fmn import fmn
from rbl_attacks.minimum_norm.projections import PROJECTIONS
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.errors import SkipCell
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L0, L1, L2, Linf

BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}
l2 = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("l2_problems.py"))))
UNIT = Bounds(0, 1)
seeds = st.integers(0, 10_000)


class Linear(nn.Module):
    """Two classes with logits (w.(x - middle), 0)."""

    def __init__(self, seed: int, dimension: int = 30, middle: float = 0.5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(dimension, generator=generator), requires_grad=False)
        self.middle = middle

    def score(self, x: Tensor) -> Tensor:
        return ((x - self.middle).flatten(1) * self.weight).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def clean_inputs(seed: int, samples: int = 40, dimension: int = 30, middle: float = 0.5, spread: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return middle + spread * torch.randn(samples, dimension, generator=generator).clamp(-2, 2)


def problem_on(
    model: nn.Module,
    clean: Tensor,
    threat_model: ThreatModel,
    bounds: Bounds = UNIT,
    objective: Objective | None = None,
    batch_size: int = 100,
) -> AttackProblem:
    with torch.no_grad():
        prediction = model(clean)
    objective = objective or Untargeted()
    return AttackProblem(
        ProblemSetting(
            model=model.eval(),
            objective=objective,
            threat_model=threat_model,
            clean=clean,
            goal=objective.prepare(prediction, prediction.argmax(1)),
            open=torch.ones(len(clean), dtype=torch.bool),
            bounds=bounds,
            rng=SampleRng.for_samples(0, "fmn", [str(index) for index in range(len(clean))], torch.device("cpu")),
            batch_size=batch_size,
            minimum_norm=True,
        )
    )


def exact_distance(model: Linear, clean: Tensor, norm: str) -> Tensor:
    """Of the decision plane, where the bounds are out of reach: |w.x + b| over the dual norm of w."""
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm]
    return model.score(clean).abs() / torch.linalg.vector_norm(model.weight, ord=dual)


def exact_count(model: Linear, clean: Tensor, bounds: Bounds) -> Tensor:
    """The fewest coordinates that reach the other class: those that gain most when moved to their bound, greedily."""
    score = model.score(clean)
    down = (model.weight * score[:, None]) < 0
    room = torch.where(down, bounds.high - clean, clean - bounds.low)
    gain = (room * model.weight.abs()).sort(1, descending=True).values.cumsum(1)
    return (gain < score.abs()[:, None]).sum(1) + 1.0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("objective", [Untargeted(), Targeted(target="next")])
@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_the_distance_on_a_linear_model_is_exact_within_one_percent(norm: str, objective: Objective, seed: int) -> None:
    model, clean = Linear(seed), clean_inputs(seed)
    clean = clean[exact_distance(model, clean, "l2") > 1e-4]  # float32 resolves less than this to no percent
    problem = problem_on(model, clean, BALLS[norm](eps=1.0), Bounds(-10, 11), objective)
    fmn(problem)
    ratio = problem.nearest() / exact_distance(model, clean, norm)
    assert (ratio > 1 - 1e-4).all()
    assert (ratio < 1.01).all()


@settings(max_examples=6, deadline=None)
@given(seed=seeds)
def test_in_l0_as_few_coordinates_are_changed_as_the_greedy_choice_needs(seed: int) -> None:
    model, clean = Linear(seed), clean_inputs(seed, spread=0.2).clamp(0, 1)
    problem = problem_on(model, clean, L0(eps=1.0))
    fmn(problem)
    exact = exact_count(model, clean, UNIT)
    assert (problem.nearest() >= exact).all()
    assert (problem.nearest() == exact).float().mean() >= 0.95
    assert (problem.nearest() <= exact + 1).all()


def test_equal_gradients_in_all_coordinates_do_not_change_all_of_them() -> None:
    model = Linear(0)
    model.weight.fill_(1.0)
    clean = torch.full((4, 30), 0.5) + torch.tensor([0.01, 0.02, 0.03, 0.05])[:, None]
    problem = problem_on(model, clean, L0(eps=1.0))
    fmn(problem)
    assert torch.equal(problem.nearest(), exact_count(model, clean, UNIT))


@pytest.mark.parametrize("norm", list(BALLS))
@pytest.mark.parametrize("bounds", [Bounds(0, 255), Bounds(-1, 1), Bounds(-math.inf, math.inf), Bounds(0, math.inf)])
def test_the_bounds_hold_and_other_ranges_are_searched_as_well(norm: str, bounds: Bounds) -> None:
    scale = bounds.width if math.isfinite(bounds.width) else 1.0
    middle = bounds.low + scale / 2 if math.isfinite(bounds.low) else 3.0
    model, clean = Linear(5, middle=middle), clean_inputs(5, middle=middle, spread=0.1 * scale)
    problem = problem_on(model, clean, BALLS[norm](eps=1.0), bounds)
    fmn(problem)
    assert problem.claimed.all()
    assert problem.candidates.min() >= bounds.low
    assert problem.candidates.max() <= bounds.high
    assert problem.candidates.isfinite().all()
    if norm != "l0":
        assert (problem.nearest() / exact_distance(model, clean, norm)).median() < 1.01


@pytest.mark.parametrize("norm", list(BALLS))
def test_a_sample_has_the_same_result_in_every_batch(norm: str) -> None:
    model, clean = Linear(3), clean_inputs(3)
    whole, single = (problem_on(model, clean, BALLS[norm](eps=1.0), batch_size=size) for size in (100, 1))
    fmn(whole, steps=20)
    fmn(single, steps=20)
    assert torch.allclose(whole.candidates, single.candidates, atol=1e-6)


@pytest.mark.parametrize("norm", list(BALLS))
@pytest.mark.parametrize("kind", ["zero gradient", "nan", "always broken"])
@pytest.mark.parametrize("bounds", [UNIT, Bounds(-math.inf, math.inf)])
def test_models_without_a_usable_gradient_get_finite_candidates(norm: str, kind: str, bounds: Bounds) -> None:
    clean = torch.rand(6, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    odd = AttackProblem(
        ProblemSetting(
            model=l2.Odd(kind).eval(),
            objective=Untargeted(),
            threat_model=BALLS[norm](eps=1.0),
            clean=clean,
            goal=torch.zeros(6, dtype=torch.int64),
            open=torch.ones(6, dtype=torch.bool),
            bounds=bounds,
            rng=SampleRng.for_samples(0, "fmn", [str(index) for index in range(6)], torch.device("cpu")),
            batch_size=4,
            minimum_norm=True,
        )
    )
    fmn(odd, steps=15)
    assert odd.candidates.isfinite().all()


def test_another_threat_model_is_skipped_with_a_reason() -> None:
    problem = problem_on(Linear(0), clean_inputs(0), Linf(eps=1.0))
    problem._searched = type("Rotation", (), {"norm": None, "eps": math.inf})()
    with pytest.raises(SkipCell, match="linf, l2, l1, l0"):
        fmn(problem)


# ---------------------------------------------------------------- projections


@pytest.mark.parametrize("norm", list(PROJECTIONS))
@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_a_projected_change_is_within_its_own_radius(norm: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    change = torch.randn(5, 12, generator=generator)
    clean = torch.rand(5, 12, generator=generator)
    radius = torch.rand(5, 1, generator=generator) * 3 + (1 if norm == "l0" else 0)
    projected = PROJECTIONS[norm](change.clone(), radius, -clean, 1 - clean)
    size = torch.linalg.vector_norm(projected, ord=ORDERS[norm], dim=1)
    assert (size <= radius[:, 0] * 1.001).all()
    assert (projected * change >= 0).all()


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_the_l1_projection_is_that_of_the_core(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    change, clean = torch.randn(6, 40, generator=generator), torch.rand(6, 40, generator=generator)
    radius = float(torch.rand((), generator=generator)) * 5 + 0.1
    exact = L1(eps=radius).around(clean, UNIT).project(clean + change) - clean
    ours = PROJECTIONS["l1"](change.clone(), torch.full((6, 1), radius), -clean, 1 - clean)
    assert torch.allclose(ours, exact, atol=2e-4 * radius)


# ---------------------------------------------------------------- the authors' code, as Foolbox has it


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


@pytest.mark.parametrize("norm", ["linf", "l1", "l0"])
def test_distances_are_at_most_those_of_the_reference_at_the_same_steps(norm: str) -> None:
    # Foolbox's l2 projects nothing (it divides the norm by itself), so it is no reference.
    foolbox = pytest.importorskip("foolbox")
    model = Curved(0).eval()
    clean = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    attack = {"linf": "LInfFMNAttack", "l1": "L1FMNAttack", "l0": "L0FMNAttack"}[norm]
    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    labels = model(clean).argmax(1)
    theirs, _, broken = getattr(foolbox.attacks, attack)(steps=60)(peer, clean, labels, epsilons=None)
    problem = problem_on(model, clean, BALLS[norm](eps=1.0))
    fmn(problem, steps=60)
    assert problem.claimed.all()
    reference = torch.linalg.vector_norm((theirs - clean).flatten(1), ord=ORDERS[norm], dim=1)
    reference = torch.where(broken, reference, torch.inf)
    assert float(problem.nearest().median()) <= 1.01 * float(reference.median())
    if norm == "linf":
        assert np.median((problem.nearest() / reference).numpy()) == pytest.approx(1, abs=0.01)
