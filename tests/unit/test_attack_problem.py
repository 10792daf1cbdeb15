"""The object an attack sees: active set, batches, counting, candidates, memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.fixed_budget.pgd import pgd
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import AttackContractError
from robustbench_lab.objectives import Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import Linf

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


def test_batches_stay_few_although_samples_drop_out() -> None:
    model = SeenRows(small_net())
    problem = AttackProblem(setting(samples=200, batch_size=16, eps=0.2, model=model))
    model.rows.clear()
    pgd(problem, steps=20)
    assert max(model.rows) <= 16
    assert len(model.rows) <= sum(model.rows) / 16 + 21, "a query may take one batch more than its samples fill"


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


# ---------------------------------------------------------------- parts, minimum norm, expectation over transformation


def test_what_a_part_finds_the_whole_problem_knows() -> None:
    problem = AttackProblem(setting(samples=30, eps=0.5))
    index = torch.arange(10, 20)
    part = problem.part(index)
    passes = problem.counted_model.forward_passes
    pgd(part, steps=10)
    broken = problem.claimed.nonzero().squeeze(1)
    assert len(broken) > 0
    assert set(broken.tolist()) <= set(range(10, 20))
    assert problem.counted_model.forward_passes > passes
    problem.drop_done()
    assert problem.open_positions.tolist() == [row for row in range(30) if row not in broken.tolist()]


def test_a_sample_that_one_of_several_searches_breaks_is_dropped_from_all() -> None:
    problem = AttackProblem(setting(samples=30, batch_size=90, eps=0.5))
    assert problem.searches_at_once == 3
    several = problem.repeated(3)
    pgd(problem.part(torch.arange(10)), steps=3)
    assert torch.equal(several.clean[30:60], problem.clean)
    far = several.project(several.clean + 0.5 * torch.eye(3).repeat_interleave(30, 0).sum(1)[:, None, None, None])
    several.succeeded(far.clone())
    rows = torch.arange(90)
    (rows,) = several.drop_done(rows)
    (left,) = problem.drop_done(torch.arange(30))
    assert 0 < len(left) < 30
    assert rows.tolist() == [search * 30 + row for search in range(3) for row in left.tolist()]
    assert torch.equal(several.open_positions, problem.open_positions.repeat(3))


def test_diagnostics_of_several_searches_are_those_of_the_last() -> None:
    one, several = (AttackProblem(setting(eps=1e-4)) for _ in range(2))
    problem = several.repeated(2)
    problem.new_search()
    x = one.random_start()
    for _ in range(20):
        one.loss_and_gradient(x)
        problem.loss_and_gradient(torch.cat([torch.rand_like(x), x]))
    assert several.trace.findings() == one.trace.findings()


def test_a_part_gives_the_numbers_of_the_whole() -> None:
    problem = AttackProblem(setting(samples=30))
    index = torch.tensor([3, 7, 21])
    part = problem.part(index)
    whole, piece = problem.probe(problem.clean), part.probe(part.clean)
    assert torch.allclose(piece.prediction, whole.prediction[index], atol=1e-6)
    assert torch.allclose(piece.gradient, whole.gradient[index], atol=1e-7)
    assert torch.equal(part.uniform("some"), problem.uniform("some")[index])


def test_minimum_norm_keeps_the_nearest_success_and_drops_nothing() -> None:
    given_setting = replace(setting(samples=20, eps=0.01), minimum_norm=True)
    problem = AttackProblem(given_setting)
    assert problem.eps == float("inf")
    direction = problem.probe(problem.clean, candidate=False).gradient.sign()
    shortest = torch.full((20,), float("inf"))
    for scale in (1.0, 0.5, 0.7, 0.05):
        tried = (problem.clean + scale * direction).clamp(0, 1)
        shortest = torch.where(problem.succeeded(tried), shortest.minimum(problem.distance(tried)), shortest)
        problem.drop_done()
        assert problem.open_samples == 20
    assert torch.equal(problem.nearest(), shortest)
    assert torch.equal(problem.nearest().isfinite(), problem.claimed)
    reached = problem.claimed
    assert torch.allclose(problem.nearest()[reached], problem.distance(problem.best())[reached])


def test_a_custom_loss_gets_what_is_given_batch_by_batch() -> None:
    problem = AttackProblem(setting(samples=40, batch_size=7))
    target = torch.arange(40) % 4

    def towards(prediction: Tensor, goal: Tensor, wanted: Tensor) -> Tensor:
        return prediction.gather(1, wanted[:, None]).squeeze(1)

    logits = problem.logits(problem.clean)
    losses, gradient = problem.loss_and_gradient(problem.clean, towards, given=(target,))
    assert torch.allclose(losses, logits.gather(1, target[:, None]).squeeze(1), atol=1e-6)
    assert torch.allclose(problem.loss(problem.clean, towards, given=(target,)), losses, atol=1e-6)
    _, jacobian = problem.logits_and_jacobian(problem.clean, torch.arange(4).expand(40, 4))
    assert torch.allclose(jacobian[torch.arange(40), target], gradient, atol=1e-6)


def test_a_jacobian_costs_one_forward_and_one_backward_pass_a_class() -> None:
    problem = AttackProblem(setting(samples=10))
    problem.logits_and_jacobian(problem.clean, torch.tensor([[0, 2, 3]]).expand(10, 3))
    assert (problem.counted_model.forward_passes, problem.counted_model.backward_passes) == (10, 30)


def test_a_jacobian_against_a_class_is_the_difference_to_that_class() -> None:
    problem = AttackProblem(replace(setting(samples=10), batch_size=3))
    classes, against = torch.tensor([[0, 2]]).expand(10, 2), torch.arange(10) % 4
    _, every = problem.logits_and_jacobian(problem.clean, torch.arange(4).expand(10, 4))
    _, found = problem.logits_and_jacobian(problem.clean, classes, against)
    assert torch.allclose(found, every[:, [0, 2]] - every[torch.arange(10), against, None], atol=1e-6)


class NoisyLogits(nn.Module):
    """Adds noise of size 1 to the logits, in turn +1 and -1 on the first class."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.turn = small_net(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.turn += 1
        noise = torch.tensor([1.0 if self.turn % 2 else -1.0, 0, 0, 0])
        return self.net(x) + noise


def test_expectation_over_transformation_takes_the_mean_of_every_query() -> None:
    plain = AttackProblem(setting(samples=10))
    noisy = AttackProblem(replace(setting(samples=10, model=NoisyLogits()), eot=4))
    margin = "margin"
    assert torch.allclose(noisy.logits(noisy.clean), plain.logits(plain.clean), atol=1e-6)
    _, jacobian = noisy.logits_and_jacobian(noisy.clean, torch.tensor([[0]]).expand(10, 1))
    _, exact = plain.logits_and_jacobian(plain.clean, torch.tensor([[0]]).expand(10, 1))
    assert torch.allclose(jacobian, exact, atol=1e-6)
    assert noisy.counted_model.forward_passes == 4 * plain.counted_model.forward_passes
    losses, _ = noisy.loss_and_gradient(noisy.clean, margin)
    by_hand = torch.stack(
        [noisy.objective.loss(margin, noisy.counted_model(noisy.clean), noisy.goal) for _ in range(2)]
    )
    assert torch.allclose(losses, by_hand.mean(0), atol=1e-5)


def test_results_of_queries_can_be_written_to() -> None:
    problem = AttackProblem(setting(samples=5))
    for result in (problem.loss(problem.clean), problem.logits(problem.clean), problem.succeeded(problem.clean)):
        result[:1] = 0
