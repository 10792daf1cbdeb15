"""PGD, FGSM and noise against closed forms on linear models."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.fixed_budget.fgsm import fgsm
from rbl_attacks.fixed_budget.pgd import pgd
from rbl_attacks.score_based.noise import noise
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, ThreatModel
from robustbench_lab.objectives import Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

SAMPLES, DIMENSION = 64, 30


class Linear(nn.Module):
    """Two classes with logits (w.x + b, 0): the margin of a sample and the best attack on it are known exactly."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(DIMENSION, generator=generator), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        score = (x - 0.5) @ self.weight
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def problem_on(model: Linear, threat_model: ThreatModel, seed: int) -> AttackProblem:
    generator = torch.Generator().manual_seed(seed + 100)
    clean = 0.5 + 0.1 * torch.randn(SAMPLES, DIMENSION, generator=generator).clamp(-2, 2)
    return AttackProblem(
        ProblemSetting(
            model=model.eval(),
            objective=Untargeted(),
            threat_model=threat_model,
            clean=clean,
            goal=model(clean).argmax(1),
            open=torch.ones(SAMPLES, dtype=torch.bool),
            bounds=Bounds(-10, 10),
            rng=SampleRng.for_samples(0, "pgd", [str(index) for index in range(SAMPLES)], torch.device("cpu")),
            batch_size=25,
        )
    )


def exact_distance(model: Linear, clean: Tensor, norm: str) -> Tensor:
    """Distance to the decision plane: |w.x + b| over the dual norm of w."""
    dual = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
    return model(clean)[:, 0].abs() / torch.linalg.vector_norm(model.weight, ord=dual)


@pytest.mark.parametrize("ball", [Linf, L2, L1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_pgd_breaks_exactly_the_samples_within_reach(ball: type, momentum: float, seed: int) -> None:
    model = Linear(seed)
    reach = exact_distance(model, problem_on(model, ball(eps=1.0), seed).clean, ball.norm)
    eps = float(reach.median())
    problem = problem_on(model, ball(eps=eps), seed)
    pgd(problem, steps=100, momentum=momentum)
    assert problem.claimed[reach < 0.97 * eps].all()
    assert not problem.claimed[reach > 1.001 * eps].any()


def test_fgsm_is_exact_on_a_linear_model() -> None:
    model = Linear(0)
    problem = problem_on(model, Linf(eps=0.02), 0)
    reach = exact_distance(model, problem.clean, "linf")
    fgsm(problem)
    assert torch.equal(problem.claimed, reach < 0.02)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_every_schedule_reaches_the_samples_within_reach(schedule: str) -> None:
    model = Linear(3)
    problem = problem_on(model, Linf(eps=0.02), 3)
    reach = exact_distance(model, problem.clean, "linf")
    pgd(problem, steps=40, schedule=schedule)
    assert problem.claimed[reach < 0.98 * 0.02].all()


def test_restarts_only_go_on_with_the_samples_still_unbroken() -> None:
    model = Linear(1)
    one, three = problem_on(model, Linf(eps=0.01), 1), problem_on(model, Linf(eps=0.01), 1)
    pgd(one, steps=5, restarts=1)
    pgd(three, steps=5, restarts=3)
    unbroken = int((~one.claimed).sum())
    assert (three.claimed | ~one.claimed).all()
    assert three.counted_model.backward_passes <= one.counted_model.backward_passes + 2 * 5 * unbroken


def test_noise_is_far_weaker_than_pgd_and_stays_in_the_ball() -> None:
    model = Linear(2)
    random, search = problem_on(model, Linf(eps=0.02), 2), problem_on(model, Linf(eps=0.02), 2)
    clean = random.clean.clone()
    noise(random, repeats=10)
    pgd(search, steps=20)
    assert random.claimed.sum() < search.claimed.sum()
    assert ((random.candidates - clean).abs() <= 0.02 * 1.00001 + 1e-6).all()


def test_the_clean_inputs_are_never_overwritten() -> None:
    model = Linear(2)
    problem = problem_on(model, Linf(eps=0.02), 2)
    before = problem.clean.clone()
    pgd(problem, steps=5, random_start=False)
    assert torch.equal(problem_on(model, Linf(eps=0.02), 2).clean, before)
    assert torch.equal(problem._setting.clean, before)
