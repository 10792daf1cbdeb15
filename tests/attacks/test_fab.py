"""FAB and FAB-T against closed forms on linear models, and per sample against the authors' code."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.minimum_norm.fab import fab, fab_t
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

BALLS = {"linf": Linf, "l2": L2, "l1": L1}
ORDER = {"linf": math.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}
NORMS = list(BALLS)
WIDE = Bounds(-100, 100)
SAMPLES, DIMENSION = 24, 40


class Linear(nn.Module):
    """K classes with logits W x + b: the distance to every boundary is known."""

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
    """A small smooth net with 5 classes; the larger its weights, the more its boundaries are curved."""

    def __init__(self, weights: float = 2.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(48, 30), nn.Tanh(), nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 5)
        )
        for weight in self.layers.parameters():
            weight.requires_grad_(False).mul_(weights)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x - 0.5)
        return out


def setting_on(
    model: nn.Module,
    clean: Tensor,
    norm: str,
    *,
    eps: float | None = None,
    bounds: Bounds = WIDE,
    objective: Objective | None = None,
    batch_size: int = 10,
) -> ProblemSetting:
    """A fixed budget where `eps` is given, otherwise minimum norm."""
    objective = objective or Untargeted()
    prediction = model.eval()(clean)
    goal = objective.prepare(prediction, prediction.argmax(1))
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=BALLS[norm](eps=eps or 1.0),
        clean=clean,
        goal=goal,
        open=torch.ones(len(clean), dtype=torch.bool),
        bounds=bounds,
        rng=SampleRng.for_samples(0, "fab", [str(index) for index in range(len(clean))], torch.device("cpu")),
        batch_size=batch_size,
        minimum_norm=eps is None,
    )


def problem_on(model: nn.Module, clean: Tensor, norm: str, **options: Any) -> AttackProblem:
    return AttackProblem(setting_on(model, clean, norm, **options))


def inputs(*shape: int, seed: int = 1, samples: int = SAMPLES) -> Tensor:
    return torch.rand(samples, *shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [fab, fab_t])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_distance_is_exact_on_a_linear_model(attack: Callable[..., None], norm: str, seed: int) -> None:
    model, clean = Linear(seed=seed), inputs(DIMENSION, seed=seed + 1)
    problem = problem_on(model, clean, norm)
    attack(problem, steps=20)
    exact = model.distances(clean, norm).amin(1)
    ratio = problem.nearest() / exact
    assert (problem.nearest() > exact * (1 - 1e-4) - 1e-6).all()  # the logits of a tiny change are rounded
    assert (ratio < 1.001).float().mean() > 0.8
    # Where two boundaries are about as far, the final search may go to the wrong one of them.
    assert (ratio < 1.01).all()


@pytest.mark.parametrize("norm", NORMS)
def test_without_the_final_search_the_distance_is_within_one_percent(norm: str) -> None:
    model, clean = Linear(), inputs(DIMENSION)
    problem = problem_on(model, clean, norm)
    fab(problem, steps=20, final_search=0)
    assert (problem.nearest() / model.distances(clean, norm).amin(1) < 1.01).all()


@pytest.mark.parametrize("norm", NORMS)
def test_searches_side_by_side_find_what_they_find_one_after_another(norm: str) -> None:
    clean = inputs(3, 4, 4)
    alone, together = (problem_on(Tanh(), clean, norm, batch_size=size) for size in (SAMPLES, 4 * SAMPLES))
    for problem in (alone, together):
        fab_t(problem, steps=15, targets=4)
    torch.testing.assert_close(together.nearest(), alone.nearest(), rtol=1e-4, atol=1e-6)
    assert together.counted_model.forward_passes == alone.counted_model.forward_passes


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [None, 3])
def test_a_budget_breaks_exactly_the_samples_within_reach(norm: str, targets: int | None) -> None:
    model, clean = Linear(), inputs(DIMENSION, samples=100)
    reach = model.distances(clean, norm).amin(1)
    eps = float(reach.median())
    setting = setting_on(model, clean, norm, eps=eps)
    problem = AttackProblem(setting)
    fab(problem, steps=20, targets=targets)
    assert problem.claimed[reach < 0.99 * eps].all()
    assert not problem.claimed[reach > 1.001 * eps].any()
    audit = audit_attack(problem, setting, setting.model, passes=1)
    assert audit.problems == ()
    assert (torch.from_numpy(~audit.outcomes.robust) == problem.claimed).all()


@pytest.mark.parametrize("norm", NORMS)
def test_each_target_is_the_next_most_likely_class_of_the_clean_input(norm: str) -> None:
    model, clean = Linear(), inputs(DIMENSION)
    by_rank = model(clean).argsort(1, descending=True)[:, 1:]
    exact = model.distances(clean, norm).gather(1, by_rank)
    for targets in (1, 2, 3):
        problem = problem_on(model, clean, norm)
        fab(problem, steps=10, targets=targets)
        nearest_of_all, nearest_of_some = exact.amin(1), exact[:, :targets].amin(1)
        # On the way to one class the search may pass through another, which counts as well.
        assert (problem.nearest() < 1.001 * nearest_of_some).all()
        assert (problem.nearest() > 0.999 * nearest_of_all).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_targeted_objective_reaches_its_goal(norm: str) -> None:
    model, clean = Linear(), inputs(DIMENSION)
    setting = setting_on(model, clean, norm, objective=Targeted(target="second"))
    problem = AttackProblem(setting)
    fab(problem, steps=30)
    assert problem.claimed.all()
    assert (model(problem.candidates).argmax(1) == setting.goal).all()
    exact = model.distances(clean, norm).gather(1, setting.goal[:, None]).squeeze(1)
    assert (problem.nearest() > 0.999 * exact).all()
    assert (problem.nearest() / exact).median() < 1.01


# ---------------------------------------------------------------- passes and samples


def test_a_step_takes_two_forward_passes_and_one_backward_pass() -> None:
    problem = problem_on(Tanh(), inputs(3, 4, 4), "linf", bounds=Bounds())
    fab(problem, steps=7, targets=2, final_search=0)
    assert problem.counted_model.forward_passes == SAMPLES * (2 * 7 * 2 + 1)
    assert problem.counted_model.backward_passes == SAMPLES * 7 * 2


def test_samples_that_are_broken_take_no_further_pass() -> None:
    model, clean = Linear(), inputs(DIMENSION)
    problem = problem_on(model, clean, "linf", eps=2 * float(model.distances(clean, "linf").amax()))
    fab_t(problem)
    assert problem.finished
    assert problem.counted_model.forward_passes == SAMPLES * 3  # the ranking, one hyperplane, one check
    assert problem.counted_model.backward_passes == SAMPLES


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [None, 0.05])
def test_outcomes_do_not_depend_on_the_batch_size(norm: str, eps: float | None) -> None:
    clean = inputs(3, 4, 4)
    one, other = (
        problem_on(Tanh(), clean, norm, eps=eps, bounds=Bounds(), batch_size=size) for size in (1, len(clean))
    )
    for problem in (one, other):
        fab(problem, steps=8, restarts=2)
    assert torch.equal(one.claimed, other.claimed)
    # Not bit by bit: a network's rounding depends on the batch.
    assert torch.allclose(one.candidates, other.candidates, atol=1e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_search_elsewhere_and_never_lose_what_was_found(norm: str) -> None:
    clean = inputs(3, 4, 4, samples=50)
    one, three = (problem_on(Tanh(weights=10), clean, norm, bounds=Bounds(), batch_size=50) for _ in range(2))
    fab_t(one, steps=20, restarts=1, final_search=0)
    fab_t(three, steps=20, restarts=3, final_search=0)
    assert (three.nearest() <= one.nearest()).all()
    assert (three.nearest() < one.nearest()).any()


def test_the_clean_inputs_are_never_overwritten() -> None:
    clean = inputs(3, 4, 4)
    problem = problem_on(Tanh(), clean, "linf", bounds=Bounds())
    before = clean.clone()
    fab(problem, steps=5)
    assert torch.equal(clean, before)
    assert torch.equal(problem.clean, before)


# ---------------------------------------------------------------- bad input


class Broken(nn.Module):
    """A net whose first rows of a class are spoilt: what, says the name."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.net = Tanh()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        if self.what == "no gradient":
            return logits.detach() + 0 * x.flatten(1).sum(1, keepdim=True)
        if self.what == "nan away from clean inputs":
            return torch.where((x * 64 == (x * 64).round()).flatten(1).all(1)[:, None], logits, math.nan)
        if self.what == "nan gradient":
            return logits + 0 * (x - x.detach()).abs().sqrt().flatten(1).sum(1, keepdim=True)
        return logits[:, :2]


@pytest.mark.parametrize("what", ["no gradient", "nan away from clean inputs", "nan gradient", "two classes"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [None, 9])
@pytest.mark.parametrize("eps", [None, 0.1])
def test_bad_models_end_in_finite_candidates(what: str, norm: str, targets: int | None, eps: float | None) -> None:
    clean = (inputs(3, 4, 4, samples=5) * 64).round() / 64
    problem = problem_on(Broken(what), clean, norm, eps=eps, bounds=Bounds())
    fab(problem, steps=3, restarts=2, targets=targets)
    assert problem.candidates.isfinite().all()
    if what == "two classes" and eps is None:
        assert problem.claimed.any()


@pytest.mark.parametrize("bounds", [Bounds(-2.0, 3.0), Bounds(-math.inf, math.inf)])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(48,), (2, 3, 8), (16, 3)])
def test_any_shape_and_bounds(bounds: Bounds, norm: str, shape: tuple[int, ...]) -> None:
    clean = inputs(*shape, samples=5)
    problem = problem_on(Tanh(), clean, norm, bounds=bounds)
    fab_t(problem, steps=10, targets=2)
    assert problem.claimed.any()
    assert problem.candidates.min() >= bounds.low
    assert problem.candidates.max() <= bounds.high


def test_a_model_with_one_class_is_refused_in_one_line() -> None:
    problem = problem_on(Linear(classes=1), inputs(DIMENSION), "linf")
    with pytest.raises(SkipCell, match="one class"):
        fab(problem)


# ---------------------------------------------------------------- the authors' code


@pytest.fixture
def official() -> Callable[..., Tensor]:
    """The distances `[N]` that the authors' attack finds."""
    module = pytest.importorskip("pyautoattack.fab_pt")

    def run(model: nn.Module, x: Tensor, norm: str, *, steps: int, targets: int | None) -> Tensor:
        attack = module.FABAttack_PT(model, norm=norm.capitalize(), n_iter=steps, device=x.device)
        with torch.no_grad():
            label = model(x).argmax(1)
        nearest = torch.full((len(x),), math.inf)
        for attack.target_class in range(2, 2 + (targets or 1)):
            found = attack.attack_single_run(x, label, is_targeted=targets is not None)
            moved = (found - x).flatten(1)
            distance = torch.linalg.vector_norm(moved, ord=ORDER[norm], dim=1)
            nearest = torch.where(distance > 0, torch.minimum(nearest, distance), nearest)
        return nearest

    return run


def agrees(ours: Tensor, theirs: Tensor, budgets: list[float], beta: float = 0.9, share: float = 0.99) -> None:
    """Same outcomes at each budget, and distances within 1% of that share of the samples.

    Ours may be smaller, down to a factor beta: we count the points pulled back, which cost no pass, if they succeed.
    """
    ratio = ours / theirs
    assert (ratio < 1.01).float().mean() >= share
    assert (ratio > 0.99 * beta).float().mean() >= 0.99
    assert ((ratio - 1).abs() < 0.01).float().mean() >= 0.9
    for eps in budgets:
        assert ((ours <= eps) != (theirs <= eps)).float().mean() <= 0.01


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [None, 2])
def test_distances_on_a_smooth_net_are_those_of_the_authors_code(
    official: Callable[..., Tensor], norm: str, targets: int | None
) -> None:
    model, clean = Tanh().eval(), inputs(3, 4, 4, samples=100)
    problem = problem_on(model, clean, norm, bounds=Bounds(), batch_size=100)
    fab(problem, steps=30, targets=targets, final_search=0)
    theirs = official(model, clean, norm, steps=30, targets=targets)
    agrees(problem.nearest(), theirs, [float(theirs.quantile(share)) * 1.003 for share in (0.2, 0.5, 0.8)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "budgets"), [("linf", [1 / 255, 2 / 255, 4 / 255]), ("l2", [0.1, 0.3]), ("l1", [5.0])]
)
def test_distances_on_a_published_net_are_those_of_the_authors_code(
    official: Callable[..., Tensor], shared_folder: Path, norm: str, budgets: list[float]
) -> None:
    from rbl_onnx.onnx_model import onnx_model

    mean, std = [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]
    model = onnx_model(str(shared_folder / "models" / "cifar10_resnet_2b.onnx"), mean=mean, std=std)
    model.requires_grad_(False)
    images = np.load(shared_folder / "data" / "cifar10_test_5k.npz")
    clean = torch.from_numpy(images[images.files[0]][:50]).float() / 255
    clean = clean.permute(0, 3, 1, 2).contiguous() if clean.shape[-1] == 3 else clean
    problem = problem_on(model, clean, norm, bounds=Bounds(), batch_size=50)
    fab(problem, steps=50, targets=2, final_search=0)
    # Rounding, which differs from one processor to another, leads a few of the sparse searches in l1 elsewhere.
    share = 0.95 if norm == "l1" else 0.99
    agrees(problem.nearest(), official(model, clean, norm, steps=50, targets=2), budgets, share=share)
