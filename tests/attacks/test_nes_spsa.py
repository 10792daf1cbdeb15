"""NES and SPSA: their directions, closed forms on linear models, their budgets, and SPSA's steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.score_based.estimated_gradient import Directions, drawn, estimated_gradient, gaussian, rademacher
from rbl_attacks.score_based.nes import nes
from rbl_attacks.score_based.spsa import spsa
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.testing.known_models import HalfSpace, half_space_setting
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

BALLS = {"linf": Linf, "l2": L2, "l1": L1}
Attack = Callable[..., None]
ATTACKS = [(nes, "linf"), (nes, "l2"), (nes, "l1"), (spsa, "linf"), (spsa, "l2")]


def setting_on(model: nn.Module, shape: tuple[int, ...], norm: str, eps: float, bounds: Bounds) -> ProblemSetting:
    """Ten random inputs of class 0, all of them open."""
    generator = torch.Generator().manual_seed(3)
    clean = bounds.low + bounds.width * torch.rand(10, *shape, generator=generator)
    return ProblemSetting(
        model=model.eval().requires_grad_(False),
        objective=Untargeted(),
        threat_model=BALLS[norm](eps),
        clean=clean,
        goal=torch.zeros(10, dtype=torch.int64),
        open=torch.ones(10, dtype=torch.bool),
        bounds=bounds,
        rng=SampleRng.for_samples(0, "check", [str(one) for one in range(10)], clean.device),
        batch_size=4,
    )


class Constant(nn.Module):
    """The same logits for every input: no gradient anywhere."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1) + 0 * x.flatten(1).sum(1, keepdim=True)


# ---------------------------------------------------------------- directions


def one(problem: AttackProblem, directions: Directions, draw: str) -> Tensor:
    """One direction for each sample, `[A, ...]`."""
    return next(drawn(problem, directions, 1, draw, 1))[0]


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 7), (2, 33, 5)])
def test_rademacher_directions_are_signs(shape: tuple[int, ...]) -> None:
    problem = AttackProblem(setting_on(Constant(1, 0), shape, "linf", 0.1, Bounds()))
    assert one(problem, rademacher, "a").abs().eq(1).all()
    assert one(problem, rademacher, "a").shape == one(problem, gaussian, "a").shape == problem.clean.shape


@pytest.mark.parametrize(("directions", "fourth"), [(rademacher, 1.0), (gaussian, 3.0)])
def test_directions_have_the_moments_they_should(directions: Directions, fourth: float) -> None:
    """Over 500,000 numbers: mean 0, variance 1, fourth moment 3 for normal ones, and no correlation of neighbours."""
    problem = AttackProblem(setting_on(Constant(1, 0), (50_000,), "linf", 0.1, Bounds()))
    numbers = one(problem, directions, "a").double()
    assert numbers.mean().abs() < 0.007
    assert (numbers.square().mean() - 1).abs() < 0.01
    assert (numbers.pow(4).mean() - fourth).abs() < 0.08
    assert (numbers[:, 1:] * numbers[:, :-1]).mean().abs() < 0.007
    assert (numbers[1:] * numbers[:-1]).mean().abs() < 0.007
    assert (numbers * one(problem, directions, "b")).mean().abs() < 0.007


@pytest.mark.parametrize("directions", [rademacher, gaussian])
def test_directions_are_the_same_however_many_go_together(directions: Directions) -> None:
    problem = AttackProblem(setting_on(Constant(1, 0), (3, 50, 70), "linf", 0.1, Bounds()))
    drawn_at_once = [torch.cat(list(drawn(problem, directions, 9, "a", at_once))) for at_once in (1, 4, 9)]
    assert drawn_at_once[0].shape == (9, *problem.clean.shape)
    assert torch.equal(drawn_at_once[0], drawn_at_once[1])
    assert torch.equal(drawn_at_once[0], drawn_at_once[2])
    assert len(drawn_at_once[0].unique(dim=0)) == 9


@pytest.mark.parametrize("directions", [rademacher, gaussian])
def test_on_a_linear_loss_the_estimate_comes_to_the_gradient(directions: Directions) -> None:
    """Its error falls with the root of the pairs: for D = 25 and 1000 pairs to about sqrt(25 / 1000) = 16%."""
    setting = half_space_setting(Linf(0.1))
    problem = AttackProblem(setting)
    estimate = estimated_gradient(
        problem, setting.clean[1:], directions, pairs=1000, radius=0.01, loss="margin", draw="a"
    )
    score_is_label = torch.where(setting.goal[1:] == 0, -1.0, 1.0).view(-1, 1, 1, 1)
    exact = score_is_label * HalfSpace().weight
    error = (estimate - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert error.max() < 0.4
    assert error.mean() < 0.22


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize(("attack", "norm"), ATTACKS)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 1000))
def test_on_a_half_space_they_break_what_is_within_reach_and_nothing_beyond(
    attack: Attack, norm: str, seed: int
) -> None:
    reach = HalfSpace(seed).distance(half_space_setting(Linf(0.1), seed=seed).clean, norm)
    eps = float(reach.median())
    setting = half_space_setting(BALLS[norm](eps), seed=seed)
    problem = AttackProblem(setting)
    attack(problem, queries=1500)
    assert problem.claimed[(reach < 0.8 * eps) & setting.open].all()
    assert not problem.claimed[reach > 1.001 * eps].any()


def test_a_targeted_objective_is_reached() -> None:
    for attack in (nes, spsa):
        setting = half_space_setting(Linf(0.3), objective=Targeted())
        problem = AttackProblem(setting)
        attack(problem, queries=600)
        assert problem.claimed[setting.open].all()


# ---------------------------------------------------------------- budget, shapes, batches, bad models


@pytest.mark.parametrize(("attack", "norm"), ATTACKS)
@pytest.mark.parametrize("queries", [3, 10, 103, 150])
def test_they_spend_at_most_their_queries(attack: Attack, norm: str, queries: int) -> None:
    problem = AttackProblem(setting_on(Constant(1, 0), (2, 3, 4), norm, 0.1, Bounds()))
    attack(problem, queries=queries, pairs=17)
    pairs = min(17, (queries - 1) // 2)
    assert problem.counted_model.forward_passes == 10 * (queries // (2 * pairs + 1)) * (2 * pairs + 1)
    assert problem.counted_model.forward_passes <= 10 * queries
    assert problem.counted_model.backward_passes == 0


@pytest.mark.parametrize("attack", [nes, spsa])
def test_they_stop_at_the_first_success(attack: Attack) -> None:
    problem = AttackProblem(setting_on(Constant(0, 1), (2, 3, 4), "linf", 0.1, Bounds()))
    attack(problem, queries=1000, pairs=5)
    assert problem.finished
    assert problem.counted_model.forward_passes == 10 * 11


@pytest.mark.parametrize(("attack", "norm"), ATTACKS)
@pytest.mark.parametrize("shape", [(9,), (3, 4), (2, 5, 3), (1, 2, 3, 4)])
@pytest.mark.parametrize("logits", [(1.0, 0.0), (float("nan"), 0.0), (float("inf"), 0.0), (5.0,)])
def test_any_shape_any_bounds_and_any_logits_stay_in_the_region(
    attack: Attack, norm: str, shape: tuple[int, ...], logits: tuple[float, ...]
) -> None:
    setting = setting_on(Constant(*logits), shape, norm, 0.2, Bounds(-3.0, 5.0))
    before = setting.clean.clone()
    problem = AttackProblem(setting)
    attack(problem, queries=60, pairs=4)
    assert setting.threat_model.around(setting.clean, setting.bounds).contains(problem.candidates).all()
    assert torch.equal(setting.clean, before)


@pytest.mark.parametrize(("attack", "norm"), ATTACKS)
def test_outcomes_do_not_depend_on_the_batch_size(attack: Attack, norm: str) -> None:
    eps = float(HalfSpace().distance(half_space_setting(Linf(0.1)).clean, norm).median())
    results = []
    for batch_size in (1, 7, 100):
        problem = AttackProblem(replace(half_space_setting(BALLS[norm](eps)), batch_size=batch_size))
        attack(problem, queries=300, pairs=10)
        results.append(problem.claimed)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_spsa_takes_the_steps_of_pytorchs_adam() -> None:
    setting = setting_on(nn.Sequential(nn.Flatten(), Shifted(12)), (1, 3, 4), "linf", 0.05, Bounds())
    problem, steps, pairs = AttackProblem(setting), 7, 5
    spsa(problem, queries=steps * (2 * pairs + 1), pairs=pairs, learning_rate=0.02)
    look = AttackProblem(setting)
    x = setting.clean.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=0.02, maximize=True)
    for step in range(1, steps + 1):
        x.grad = estimated_gradient(
            look, x.detach(), rademacher, pairs=pairs, radius=0.01, loss="margin", draw=f"spsa/{step}"
        )
        adam.step()
        x.data = look.project(x.detach().clone())
    assert not problem.claimed.any()
    torch.testing.assert_close(problem.candidates, x.detach())


class Shifted(nn.Module):
    """Smooth, with a gradient, and never wrong."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight) + torch.tensor([10.0, 0.0, 0.0])
