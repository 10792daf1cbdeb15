"""DDN against closed forms on linear models, and against the reference implementation."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rbl_attacks.minimum_norm.ddn import ddn
from robustbench_lab.contracts import Bounds, Objective
from robustbench_lab.objectives import Targeted, Untargeted

l2 = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("l2_problems.py"))))
seeds = st.integers(0, 10_000)


@pytest.mark.parametrize("objective", [Untargeted(), Targeted(target="next")])
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_the_distance_on_a_linear_model_is_exact_within_one_percent(objective: Objective, seed: int) -> None:
    model, clean = l2.Linear(seed), l2.clean_inputs(seed)
    clean = clean[model.distance(clean) > 1e-4]  # float32 resolves less than this to no percent
    problem = l2.problem_on(model, clean, Bounds(-10, 11), objective)
    ddn(problem)
    ratio = problem.nearest() / model.distance(clean)
    assert (ratio > 1 - 1e-4).all()
    assert (ratio < 1.01).all()


@pytest.mark.parametrize("init_norm", [1e-4, 1e-2, 10.0])
def test_the_first_radius_hardly_matters(init_norm: float) -> None:
    model, clean = l2.Linear(1), l2.clean_inputs(1)
    problem = l2.problem_on(model, clean)
    ddn(problem, init_norm=init_norm)
    assert (problem.nearest() / model.distance(clean) < 1.01).all()


@pytest.mark.parametrize("bounds", [Bounds(0, 255), Bounds(-1, 1), Bounds(-math.inf, math.inf), Bounds(0, math.inf)])
def test_the_bounds_hold_and_other_ranges_are_searched_as_well(bounds: Bounds) -> None:
    scale = bounds.width if math.isfinite(bounds.width) else 1.0
    middle = bounds.low + scale / 2 if math.isfinite(bounds.low) else 3.0
    model, clean = l2.Linear(5, middle=middle), l2.clean_inputs(5, middle=middle, spread=0.1 * scale)
    problem = l2.problem_on(model, clean, bounds)
    ddn(problem)
    assert problem.claimed.all()
    assert problem.candidates.min() >= bounds.low
    assert problem.candidates.max() <= bounds.high
    assert (problem.nearest() / model.distance(clean)).median() < 1.05


def test_a_sample_has_the_same_result_in_every_batch() -> None:
    model, clean = l2.Linear(3), l2.clean_inputs(3)
    whole, single = (l2.problem_on(model, clean, batch_size=size) for size in (100, 1))
    ddn(whole, steps=15)
    ddn(single, steps=15)
    assert torch.allclose(whole.candidates, single.candidates, atol=1e-6)


@pytest.mark.parametrize("kind", ["zero gradient", "nan", "always broken"])
@pytest.mark.parametrize("bounds", [l2.UNIT, Bounds(-math.inf, math.inf)])
def test_models_without_a_usable_gradient_get_finite_candidates(kind: str, bounds: Bounds) -> None:
    clean = torch.rand(6, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    problem = l2.problem_on(l2.Odd(kind), clean, bounds, batch_size=4, goal=torch.zeros(6, dtype=torch.int64))
    ddn(problem, steps=15)
    assert problem.candidates.isfinite().all()
    assert torch.equal(problem.clean, clean)


def test_distances_are_at_most_those_of_the_reference_at_the_same_steps() -> None:
    foolbox = pytest.importorskip("foolbox")
    model = l2.Curved(0).eval()
    clean = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs, _, broken = foolbox.attacks.DDNAttack(steps=60)(peer, clean, model(clean).argmax(1), epsilons=None)
    problem = l2.problem_on(model, clean)
    ddn(problem, steps=60)
    reference = torch.where(broken, (theirs - clean).flatten(1).norm(dim=1), torch.inf)
    assert problem.claimed.all()
    assert float(problem.nearest().median()) <= 1.005 * float(reference.median())
    assert float((problem.nearest() <= 1.02 * reference).float().mean()) > 0.95
