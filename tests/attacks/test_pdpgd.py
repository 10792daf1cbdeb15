"""PDPGD against closed forms on linear models, and its proximal operators against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.minimum_norm.pdpgd import pdpgd
from rbl_attacks.minimum_norm.proximal import PROXIMAL
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

ORDER = {"l0": 0.0, "l1": 1.0, "l2": 2.0, "linf": math.inf}
DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}


class Linear(nn.Module):
    """Two classes with logits (scale * w.(x - 1/2), 0)."""

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(scale * torch.randn(30, generator=generator), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        score = ((x - 0.5) * self.weight).sum(1)
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def problem_on(model: nn.Module, clean: Tensor, threat_model: ThreatModel, objective: Objective) -> AttackProblem:
    prediction = model(clean)
    return AttackProblem(
        ProblemSetting(
            model=model.eval(),
            objective=objective,
            threat_model=threat_model,
            clean=clean,
            goal=objective.prepare(prediction, prediction.argmax(1)),
            open=torch.ones(len(clean), dtype=torch.bool),
            bounds=Bounds(),
            rng=SampleRng.for_samples(0, "pdpgd", [str(index) for index in range(len(clean))], torch.device("cpu")),
            batch_size=32,
            minimum_norm=True,
        )
    )


@pytest.mark.parametrize("ball", [L1, L2, Linf])
@pytest.mark.parametrize(("objective", "scale"), [(Untargeted(), 0.1), (Targeted(), 1.0), (Untargeted(), 100.0)])
def test_the_distance_to_a_plane_is_found_within_5_percent(ball: type, objective: Objective, scale: float) -> None:
    model = Linear(7, scale)
    generator = torch.Generator().manual_seed(8)
    clean = 0.5 + 0.05 * torch.randn(24, 30, generator=generator).clamp(-2, 2)
    exact = model(clean)[:, 0].abs() / torch.linalg.vector_norm(model.weight, ord=DUAL[ball.norm])
    clean, exact = clean[exact > 0.02 * exact.median()], exact[exact > 0.02 * exact.median()]
    problem = problem_on(model, clean, ball(1), objective)
    pdpgd(problem)
    ratio = problem.nearest() / exact
    assert (ratio > 0.9999).all()
    assert float(ratio.median()) < 1.03
    assert float(ratio.quantile(0.9)) < 1.05


# ---------------------------------------------------------------- proximal operators


def cost(z: Tensor, r: Tensor, d: Tensor, k: Tensor, norm: str) -> Tensor:
    return (d * (z - r).square()).sum(1) / 2 + k * torch.linalg.vector_norm(z, ord=ORDER[norm], dim=1)


@pytest.mark.parametrize("norm", list(PROXIMAL))
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.floats(-3, 3), dimension=st.sampled_from([1, 2, 5, 40]))
def test_no_point_costs_less_than_the_proximal_point(norm: str, seed: int, size: float, dimension: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    r = torch.randn(6, dimension, generator=generator)
    d = torch.exp(2 * torch.randn(6, dimension, generator=generator))
    k = torch.rand(6, generator=generator) * 10**size + 1e-6
    z = PROXIMAL[norm](r.clone(), d, k).double()
    least = cost(z, r.double(), d.double(), k.double(), norm)
    for step in np.geomspace(1e-3, 1, 8):
        away = step * torch.randn(z.shape, generator=generator, dtype=torch.float64)
        for other in (z + away, z + away * (z != 0), z * (1 + away), r * (1 - step), z.sign() * (z.abs() - step)):
            assert (least <= cost(other, r.double(), d.double(), k.double(), norm) * (1 + 1e-4) + 1e-9).all()


@pytest.mark.parametrize("norm", list(PROXIMAL))
def test_a_large_weight_leaves_nothing_and_a_weight_of_almost_zero_leaves_all(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    r, d = torch.randn(4, 3, 5, generator=generator), torch.rand(4, 3, 5, generator=generator) + 0.1
    everything, nothing = (PROXIMAL[norm](r.clone(), d, torch.full((4,), k)) for k in (1e6, 1e-9))
    assert (everything == 0).all()
    assert torch.allclose(nothing, r, atol=1e-4)


@pytest.mark.parametrize("norm", list(PROXIMAL))
def test_of_the_origin_the_proximal_point_is_the_origin(norm: str) -> None:
    zero = torch.zeros(2, 7)
    assert torch.equal(PROXIMAL[norm](zero.clone(), torch.full((2, 7), 1e-8), torch.full((2,), 1e-3)), zero)
