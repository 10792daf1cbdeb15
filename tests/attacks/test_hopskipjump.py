"""HopSkipJump against closed forms on linear models, and against Foolbox's at the same number of queries."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.score_based.hopskipjump import _directions, _plan, hopskipjump
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L2, Linf

DUAL = {"linf": 1, "l2": 2}


class Linear(nn.Module):
    """Two classes with logits (w.(x - centre), 0)."""

    def __init__(self, dimension: int, seed: int = 0, centre: float = 0.5) -> None:
        super().__init__()
        weight = torch.randn(dimension, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.centre = centre

    def forward(self, x: Tensor) -> Tensor:
        score = (x - self.centre) @ self.weight
        return torch.stack([score, torch.zeros_like(score)], dim=1)

    def distance(self, x: Tensor, norm: str) -> Tensor:
        return self(x)[:, 0].abs() / torch.linalg.vector_norm(self.weight, ord=DUAL[norm])


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5


def problem_on(
    model: nn.Module,
    clean: Tensor,
    threat_model: ThreatModel,
    *,
    objective: Objective | None = None,
    bounds: Bounds = Bounds(),  # noqa: B008 (frozen)
    names: list[str] | None = None,
    batch_size: int = 16,
) -> AttackProblem:
    objective = objective or Untargeted()
    prediction = model(clean)
    names = names or [str(one) for one in range(len(clean))]
    return AttackProblem(
        ProblemSetting(
            model=model.eval(),
            objective=objective,
            threat_model=threat_model,
            clean=clean,
            goal=objective.prepare(prediction, prediction.argmax(1)),
            open=torch.ones(len(clean), dtype=torch.bool),
            bounds=bounds,
            rng=SampleRng.for_samples(0, "hopskipjump", names, torch.device("cpu")),
            batch_size=batch_size,
            minimum_norm=True,
        )
    )


def around_half(count: int, *shape: int, seed: int = 1) -> Tensor:
    return 0.5 + 0.05 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2)


@pytest.mark.parametrize("ball", [Linf(eps=0.1), L2(eps=0.1)])
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1000))
def test_on_a_linear_model_it_comes_within_five_percent_of_the_exact_distance(ball: Any, seed: int) -> None:
    model, clean = Linear(8, seed), around_half(20, 8, seed=seed + 1)
    problem = problem_on(model, clean, ball)
    hopskipjump(problem, queries=1500)
    ratio = problem.nearest() / model.distance(clean, ball.norm)
    assert ratio.min() > 0.999
    assert ratio.median() < 1.05
    assert ratio.max() < 1.15


@pytest.mark.parametrize("ball", [Linf(eps=0.1), L2(eps=0.1)])
def test_more_queries_bring_it_nearer(ball: ThreatModel) -> None:
    model, clean = Linear(60), around_half(20, 60)
    medians = []
    for queries in (60, 250, 1000):
        problem = problem_on(model, clean, ball)
        hopskipjump(problem, queries=queries)
        medians.append(float(problem.nearest().median()))
    assert medians[0] > 1.1 * medians[1] > 1.1**2 * medians[2]


@pytest.mark.parametrize("queries", [1, 7, 40, 100, 555, 1000])
def test_it_asks_for_no_more_decisions_than_it_may_and_for_no_gradient(queries: int) -> None:
    model, clean = Linear(30), around_half(10, 30)
    problem = problem_on(model, clean, L2(eps=0.1))
    hopskipjump(problem, queries=queries)
    assert problem.counted_model.forward_passes <= queries * len(clean)
    assert problem.counted_model.forward_passes >= 0.75 * (queries - 25) * len(clean)
    assert problem.counted_model.backward_passes == 0


@given(queries=st.integers(0, 30000), initial=st.integers(1, 200), overhead=st.integers(2, 40))
def test_the_plan_uses_what_there_is(queries: int, initial: int, overhead: int) -> None:
    plan = _plan(queries, initial, overhead)
    spent = sum(plan) + overhead * len(plan)
    assert spent <= queries
    assert not plan or spent > queries - len(plan) - 1
    assert plan == sorted(plan)
    assert plan or queries <= overhead


@pytest.mark.parametrize("ball", [Linf(eps=0.1), L2(eps=0.1)])
def test_a_sample_fares_the_same_alone_and_among_others(ball: ThreatModel) -> None:
    model, clean = Linear(30), around_half(9, 30)
    together, alone = problem_on(model, clean, ball), problem_on(model, clean[4:5], ball, names=["4"])
    hopskipjump(together, queries=300)
    hopskipjump(alone, queries=300)
    assert torch.allclose(together.candidates[4], alone.candidates[0], atol=1e-6)


def test_a_targeted_search_ends_in_the_target_class() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Centred(), nn.Linear(12, 3, bias=False)).requires_grad_(False)
    problem = problem_on(model, around_half(20, 12), L2(eps=0.1), objective=Targeted(target="second"))
    hopskipjump(problem, queries=400)
    assert problem.claimed.sum() >= 15
    assert torch.equal(model(problem.candidates).argmax(1)[problem.claimed], problem.goal[problem.claimed])


def test_wide_bounds_scale_the_search() -> None:
    near, wide = Linear(20), Linear(20, centre=50.0)
    clean = around_half(20, 20)
    small = problem_on(near, clean, L2(eps=0.1))
    large = problem_on(wide, clean * 100, L2(eps=10), bounds=Bounds(0, 100))
    hopskipjump(small, queries=300)
    hopskipjump(large, queries=300)
    assert torch.allclose(large.nearest(), 100 * small.nearest(), rtol=0.02)


def test_bounds_without_an_end_are_searched_around_the_clean_input() -> None:
    model, clean = Linear(20), around_half(20, 20)
    problem = problem_on(model, clean, L2(eps=0.1), bounds=Bounds(-math.inf, math.inf))
    hopskipjump(problem, queries=1000)
    assert (problem.nearest() < 1.5 * model.distance(clean, "l2")).all()


def test_samples_without_an_adversarial_random_input_are_left_unbroken_and_noted() -> None:
    class OnlyNearBlack(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.sum(1), torch.ones(len(x))], dim=1)

    problem = problem_on(OnlyNearBlack(), around_half(6, 40), L2(eps=0.1))
    hopskipjump(problem, queries=200)
    assert not problem.claimed.any()
    assert [(note.code, note.value) for note in problem.notes] == [("no-starting-point", 6.0)]


def test_a_model_that_answers_nan_is_broken_by_finite_inputs() -> None:
    class NotANumber(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.sum(1), x.sum(1)], dim=1) * torch.nan

    problem = problem_on(NotANumber(), around_half(4, 10), Linf(eps=0.1))
    hopskipjump(problem, queries=200)
    assert problem.candidates.isfinite().all()
    assert problem.claimed.all()


def test_the_directions_have_the_length_asked_for_and_no_preference() -> None:
    problem = problem_on(Linear(4), around_half(40, 4), L2(eps=0.1))
    lengths = torch.linspace(0.1, 4, 40)
    made = torch.stack(list(_directions(problem, lengths, 100, "directions")))
    assert torch.allclose(torch.linalg.vector_norm(made, dim=2), lengths.expand(100, 40), rtol=1e-5)
    unit = (made / lengths[:, None]).flatten(0, 1)
    assert torch.allclose(unit.T @ unit / len(unit), torch.eye(4) / 4, atol=0.03)
    assert unit.mean(0).abs().max() < 0.03


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_it_comes_as_near_as_foolbox_with_as_many_queries(norm: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 40), nn.Tanh(), nn.Linear(40, 5)).eval().requires_grad_(False)
    clean = torch.rand(24, 3, 6, 6)
    labels = model(clean).argmax(1)
    problem = problem_on(model, clean, {"l2": L2, "linf": Linf}[norm](eps=0.1), batch_size=40)
    peer = foolbox.attacks.HopSkipJumpAttack(steps=3, constraint=norm)
    counted = foolbox.PyTorchModel(problem.counted_model, bounds=(0, 1))
    found = []
    # One by one: Foolbox lets the samples of a batch share the length of their gradients.
    for image, label in zip(clean.split(1), labels.split(1), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(peer.run(counted, image, foolbox.criteria.Misclassification(label)))
    theirs = problem.distance(torch.cat(found)).median()
    queries = problem.counted_model.forward_passes // len(clean)
    hopskipjump(problem, queries=queries)
    assert problem.counted_model.forward_passes <= 2 * (queries + 1) * len(clean)
    # Medians of 24 samples differ by several percent from seed to seed.
    assert problem.nearest().median() <= 1.1 * theirs
