"""The object an attack sees: active set, batches, counting, candidates, memory."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.pgd import pgd
from robustbench_lab.attack_problem import AttackProblem, ProblemSetting
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import AttackContractError
from robustbench_lab.objectives import Untargeted
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models import Linf

CPU = torch.device("cpu")


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    return net.eval().requires_grad_(False)


def setting(
    samples: int = 40, batch_size: int = 16, eps: float = 0.05, model: nn.Module | None = None, objective: object = None
) -> ProblemSetting:
    net = model or small_net()
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(samples, 1, 4, 4, generator=generator)
    labels = net(clean).argmax(1)
    return ProblemSetting(
        model=net,
        objective=objective or Untargeted(),
        threat_model=Linf(eps=eps),
        clean=clean,
        goal=labels,
        open=torch.ones(samples, dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "test", [str(index) for index in range(samples)], CPU),
        batch_size=batch_size,
    )


class SeenRows(nn.Module):
    """Notes how many samples each call got."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return self.model(x)


def test_samples_that_were_wrong_from_the_start_are_never_queried() -> None:
    given_setting = setting()
    given_setting.open[:30] = False
    problem = AttackProblem(given_setting)
    problem.submit(problem.clean)
    assert problem.counted_model.forward_passes == 10


def test_a_broken_sample_costs_nothing_from_then_on() -> None:
    problem = AttackProblem(setting(eps=0.5))
    passes = []
    x = problem.random_start()
    for _ in range(20):
        _, gradient = problem.loss_and_gradient(x)
        x, gradient = problem.drop_done(x, gradient)
        passes.append(problem.open_samples)
        x = problem.project(x + 0.1 * problem.steepest(gradient, x))
    assert problem.counted_model.forward_passes == 40 + sum(passes[:-1])
    assert problem.counted_model.backward_passes == problem.counted_model.forward_passes
    assert passes[-1] < 40


def test_batches_stay_full_although_samples_drop_out() -> None:
    model = SeenRows(small_net())
    problem = AttackProblem(setting(samples=200, batch_size=16, eps=0.2, model=model))
    model.rows.clear()
    pgd(problem, steps=20)
    short = [rows for rows in model.rows if rows < 16]
    assert len(short) <= 21, "at most one batch of each query may be short"


@settings(max_examples=20, deadline=None)
@given(batch_size=st.integers(1, 50))
def test_outcomes_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    reference, other = AttackProblem(setting(batch_size=40)), AttackProblem(setting(batch_size=batch_size))
    pgd(reference, steps=10)
    pgd(other, steps=10)
    assert torch.equal(reference.claimed, other.claimed)
    assert torch.allclose(reference.candidates, other.candidates, atol=1e-5)


def test_a_sample_meets_the_same_random_numbers_whoever_is_beside_it() -> None:
    whole = AttackProblem(setting())
    given_setting = setting()
    given_setting.open[::2] = False
    half = AttackProblem(given_setting)
    assert torch.equal(half.random_start(3), whole.random_start(3)[1::2])
    assert torch.equal(half.normal("n"), whole.normal("n")[1::2])


def test_the_first_successful_candidate_is_kept_and_later_ones_are_not() -> None:
    problem = AttackProblem(setting(samples=8, eps=1.0))
    flipped = 1 - problem.clean
    succeeded = problem.succeeded(flipped)
    problem.submit(problem.clean.clone())
    assert succeeded.any()
    assert torch.equal(problem.claimed, succeeded)
    assert torch.equal(problem.candidates[succeeded], flipped[succeeded])


def test_a_point_that_is_only_looked_at_is_no_candidate() -> None:
    problem = AttackProblem(setting(samples=8, eps=1.0))
    assert problem.succeeded(1 - problem.clean, candidate=False).any()
    assert not problem.claimed.any()
    (clean,) = problem.drop_done(problem.clean)
    assert len(clean) == 8


@dataclass(frozen=True)
class RunsOn(Untargeted):
    """An objective that never stops, as those of detectors and forecasters."""

    stop_on_success: bool = False


def test_where_the_objective_runs_on_the_most_damaging_candidate_is_kept() -> None:
    problem = AttackProblem(setting(samples=8, objective=RunsOn()))
    tried = [problem.random_start(number) for number in range(5)]
    damage = []
    for x in tried:
        problem.submit(x)
        damage.append(problem.objective.damage(problem.counted_model(x), problem.goal))
    best = torch.stack(damage).argmax(0)
    for sample in range(8):
        assert torch.equal(problem.candidates[sample], tried[best[sample]][sample])
    assert not problem.finished


class LittleMemory(nn.Module):
    """Refuses batches above a size, as a full GPU does."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model = model
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("no room")
        return self.model(x)


def test_running_out_of_memory_halves_the_batch_and_changes_no_outcome() -> None:
    reference = AttackProblem(setting())
    tight = AttackProblem(setting(model=small_net(), batch_size=40))
    tight.counted_model.model = LittleMemory(tight.counted_model.model, most=6)
    pgd(reference, steps=5)
    pgd(tight, steps=5)
    assert tight.batch_size <= 6
    assert torch.equal(reference.claimed, tight.claimed)


def test_memory_too_small_for_one_sample_is_an_error() -> None:
    problem = AttackProblem(setting())
    problem.counted_model.model = LittleMemory(problem.counted_model.model, most=0)
    with pytest.raises(torch.OutOfMemoryError):
        problem.submit(problem.clean)


def test_a_query_of_the_wrong_form_is_named() -> None:
    problem = AttackProblem(setting())
    with pytest.raises(AttackContractError, match=r"\[3, 1, 4, 4\].*the open samples are .*\[40, 1, 4, 4\]"):
        problem.submit(problem.clean[:3])
    with pytest.raises(AttackContractError, match="float64"):
        problem.submit(problem.clean.double())


def test_gradients_agree_with_finite_differences() -> None:
    problem = AttackProblem(setting(samples=3))
    x = problem.clean.clone()
    _, gradient = problem.loss_and_gradient(x)
    direction = problem.normal("direction")
    step = 1e-3
    ahead, behind = problem.loss(x + step * direction), problem.loss(x - step * direction)
    slope = (gradient * direction).flatten(1).sum(1)
    assert torch.allclose((ahead - behind) / (2 * step), slope, rtol=1e-2, atol=1e-3)
