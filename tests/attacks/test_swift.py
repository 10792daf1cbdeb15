"""swift: closed forms, what it must not depend on, its cost, its findings, and AutoAttack's figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rbl_attacks.ensembles import SPECS
from rbl_attacks.ensembles.swift import swift
from rbl_attacks.ensembles.swift_climb import climb, either, gap_scaled_cross_entropy, lead_of_target
from rbl_attacks.ensembles.swift_gaps import Gaps
from rbl_attacks.ensembles.swift_targets import rank_classes
from rbl_reference.digits import Digits
from rbl_reference.digits_cnn import digits_cnn_at
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.objectives import Targeted, Untargeted
from robustbench_lab.passes.model_queries import Probe
from robustbench_lab.passes.prediction import predict_in_batches
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.records import Severity
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

SHAPE = (2, 3, 5)
DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}
NORMS = [Linf, L2, L1]


class Linear(nn.Module):
    """`classes` logits that are linear: the distance to each class is known exactly."""

    def __init__(self, seed: int, classes: int = 4) -> None:
        super().__init__()
        size = torch.Size(SHAPE).numel()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, size, generator=generator), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T

    def distances(self, x: Tensor, norm: str) -> Tensor:
        """To each class, `[N, K]`; infinite to the predicted one."""
        logits = self(x)
        label = logits.argmax(1)
        slope = torch.linalg.vector_norm(self.weight[label][:, None] - self.weight[None], ord=DUAL[norm], dim=2)
        distance = (logits.gather(1, label[:, None]) - logits) / slope
        return distance.scatter(1, label[:, None], float("inf"))


class SmallNet(nn.Module):
    """A network of tanh units. scale: of the logits. rounded: its inputs are, which takes away all gradient."""

    def __init__(self, *, scale: float = 1.0, rounded: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Parameter(torch.randn(30, 20, generator=generator) / 2, requires_grad=False)
        self.second = nn.Parameter(scale * torch.randn(20, 6, generator=generator), requires_grad=False)
        self.rounded = rounded

    def forward(self, x: Tensor) -> Tensor:
        seen = (x * 64).round() / 64 if self.rounded else x
        return torch.tanh((seen - 0.5).flatten(1) @ self.first) @ self.second


class CountedRows(nn.Module):
    """Notes which samples are looked at, told apart by the first value, which no attack can move."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows += [round(float(value)) for value in x.flatten(1)[:, 0]]
        return self.model(x)


def setting_of(
    model: nn.Module,
    threat_model: ThreatModel,
    *,
    samples: int = 40,
    batch_size: int = 16,
    bounds: Bounds | None = None,
    objective: Objective | None = None,
) -> ProblemSetting:
    clean = 0.3 + 0.4 * torch.rand(samples, *SHAPE, generator=torch.Generator().manual_seed(1))
    prediction = model.eval()(clean)
    objective = objective or Untargeted()
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=threat_model,
        clean=clean,
        goal=objective.prepare(prediction, prediction.argmax(1)),
        open=torch.ones(samples, dtype=torch.bool),
        bounds=bounds or Bounds(),
        rng=SampleRng.for_samples(0, "swift", [str(index) for index in range(samples)], torch.device("cpu")),
        batch_size=batch_size,
    )


def attacked(setting: ProblemSetting) -> AttackProblem:
    problem = AttackProblem(setting)
    swift(problem)
    return problem


# ---------------------------------------------------------------- closed forms


def test_a_wide_climb_looks_beyond_the_budget_and_claims_nothing_there() -> None:
    model = Linear(3)
    clean = setting_of(model, L1(1.0)).clean
    eps = 0.5 * float(model.distances(clean, "l1").min())
    farthest = 0.0

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal farthest
            farthest = max(farthest, float((x.detach() - clean).abs().flatten(1).sum(1).max()))
            return model(x)

    problem = AttackProblem(setting_of(Watched(), L1(eps), batch_size=len(clean), bounds=Bounds(-9, 9)))
    gaps = Gaps(len(clean), clean.device)
    climb(problem, problem.clean.clone(), 20, gap_scaled_cross_entropy(Untargeted()), gaps, wide=True)
    assert farthest > 2 * eps
    assert not problem.claimed.any()
    assert (gaps.left(problem.open_positions) > 0.4).all()


@pytest.mark.parametrize("ball", NORMS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.sampled_from([2, 3, 7]))
def test_it_breaks_exactly_the_samples_within_reach(ball: type, seed: int, classes: int) -> None:
    model = Linear(seed, classes)
    setting = setting_of(model, ball(eps=1.0), bounds=Bounds(-100, 100))
    distance = model.distances(setting.clean, ball.norm).amin(1)
    eps = float(distance.median())
    problem = attacked(replace(setting, threat_model=ball(eps=eps)))
    assert problem.claimed[distance < 0.98 * eps].all()
    assert not problem.claimed[distance > 1.001 * eps].any()


def test_a_targeted_attack_reaches_its_class_and_no_other() -> None:
    model = Linear(3)
    setting = setting_of(model, Linf(eps=0.2), bounds=Bounds(-100, 100), objective=Targeted())
    problem = attacked(setting)
    assert problem.claimed.any()
    reached = model(problem.candidates[problem.claimed]).argmax(1)
    assert torch.equal(reached, setting.goal[problem.claimed])


def test_the_first_class_comes_nearest_in_one_step() -> None:
    model = SmallNet()
    setting = setting_of(model, Linf(eps=0.002))
    problem = AttackProblem(setting)
    ranked = rank_classes(problem)
    assert problem.open_samples >= 10
    for row in problem.open_positions.tolist():
        leads = {}
        for target in set(range(6)) - {int(setting.goal[row])}:
            leaf = setting.clean[row : row + 1].clone().requires_grad_()
            logits = model(leaf)[0]
            (slope,) = torch.autograd.grad(logits[target] - logits[setting.goal[row]], leaf)
            after = model(leaf.detach() + 0.002 * slope.sign())[0]
            leads[target] = float(after[target] - after[setting.goal[row]])
        assert ranked[row].tolist() == sorted(leads, key=lambda target: -leads[target])


# ---------------------------------------------------------------- what it must not depend on


@pytest.mark.parametrize("ball", [Linf(eps=0.03), L2(eps=0.15), L1(eps=0.4)])
def test_the_scale_of_the_logits_changes_nothing(ball: ThreatModel) -> None:
    """Scales are powers of two, so that not even rounding differs; plain cross-entropy would have no gradient left."""
    small, usual, large = (attacked(setting_of(SmallNet(scale=scale), ball)) for scale in (2.0**-20, 1.0, 2.0**20))
    assert 0 < int(usual.claimed.sum()) < 40
    assert torch.equal(small.candidates, usual.candidates)
    assert torch.equal(large.candidates, usual.candidates)


@pytest.mark.parametrize("ball", [Linf(eps=0.03), L2(eps=0.15), L1(eps=0.4)])
def test_the_batch_size_changes_no_outcome(ball: ThreatModel) -> None:
    one, all_at_once = (attacked(setting_of(SmallNet(), ball, batch_size=size)) for size in (3, 40))
    assert torch.equal(one.claimed, all_at_once.claimed)


def test_nan_logits_and_gradients_leave_every_candidate_finite() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            root = (x - 0.5).flatten(1)[:, :3].sum(1, keepdim=True).sqrt()
            return torch.cat([root, x.flatten(1)[:, :2] * 0 + 0.1], dim=1)

    setting = setting_of(Linear(0, classes=3), Linf(eps=0.05))
    problem = attacked(replace(setting, model=Broken()))
    assert problem.candidates.isfinite().all()


# ---------------------------------------------------------------- cost


def test_where_all_is_broken_at_once_nothing_more_is_asked() -> None:
    problem = attacked(setting_of(Linear(0), Linf(eps=50.0), bounds=Bounds(-100, 100)))
    assert problem.claimed.all()
    assert problem.counted_model.forward_passes <= 3 * 40


def test_a_broken_sample_is_never_looked_at_again() -> None:
    model = CountedRows(SmallNet())
    setting = setting_of(model, Linf(eps=0.03), bounds=Bounds(0, 100))
    broken_at: dict[int, int] = {}

    class Watched(AttackProblem):
        def drop_done(self, *tensors: Tensor) -> tuple[Tensor, ...]:
            for row in self.claimed.nonzero().squeeze(1).tolist():
                broken_at.setdefault(row, model.rows.count(row))
            return super().drop_done(*tensors)

    # The first value names the sample: the model does not see it, and steps of 0.03 do not change what it rounds to.
    setting.clean.flatten(1)[:, 0] = torch.arange(40.0)
    model.model.first[0] = 0
    goal = model.model(setting.clean).argmax(1)
    problem = Watched(replace(setting, goal=goal))
    swift(problem)
    assert 5 < len(broken_at) < 40
    assert {row: model.rows.count(row) for row in broken_at} == broken_at


@pytest.mark.parametrize(("ball", "rounds", "together"), [(Linf, 16, {4, 8, 28}), (L1, 24, {4, 8, 12, 16})])
def test_where_a_handful_is_left_rounds_of_equal_length_go_side_by_side_but_for_the_last(
    ball: type, rounds: int, together: set[int]
) -> None:
    sizes: list[int] = []

    class Watched(AttackProblem):
        def probe(self, x: Tensor, *args: Any, **options: Any) -> Probe:
            sizes.append(len(x))
            return super().probe(x, *args, **options)

    problem = Watched(setting_of(Linear(0), ball(eps=1e-6), samples=4))
    swift(problem)
    assert not problem.claimed.any()
    assert set(sizes) == together
    assert sizes[-100:] == [4] * 100
    assert sum(sizes) == 4 * (10 + 10 + 20 + 20 + sum(min(100, 20 * (1 + number // 2)) for number in range(rounds)))


def test_climbs_side_by_side_have_each_its_own_loss() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    label, target = torch.tensor([0, 1, 2]), torch.tensor([3, -1, 0])
    usual = gap_scaled_cross_entropy(Untargeted())
    found = either(usual)(logits, label, target)
    expected = [lead_of_target(logits, label, target.clamp_min(0)), usual(logits, label)]
    assert torch.equal(found, torch.stack([expected[0][0], expected[1][1], expected[0][2]]))
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert torch.equal(gradient[0], torch.tensor([-1.0, 0, 0, 1]))


def test_the_passes_stay_within_the_estimate() -> None:
    (spec,) = [spec for spec in SPECS if spec.name == "swift"]
    assert spec.estimate_passes is not None
    for rounded in (False, True):
        problem = attacked(setting_of(SmallNet(rounded=rounded), Linf(eps=0.02), samples=3))
        forward, backward = spec.estimate_passes({"effort": 1})
        assert problem.counted_model.forward_passes <= 3 * forward
        assert problem.counted_model.backward_passes <= 3 * backward


def test_samples_far_from_the_boundary_leave_the_race() -> None:
    gaps = gaps_after(left=torch.linspace(0.1, 0.9, 400), gained=lambda _left: 0.3)
    racing = gaps.racing(torch.arange(400), share=0.05)
    assert racing.tolist() == list(range(int((torch.linspace(0.1, 0.9, 400) <= 0.3).sum())))


def test_the_nearest_race_on_although_nothing_was_gained() -> None:
    gaps = gaps_after(left=torch.linspace(0.9, 0.1, 64), gained=lambda _left: 0.0)
    assert gaps.racing(torch.arange(64), share=1 / 8).tolist() == list(range(56, 64))


def gaps_after(left: Tensor, gained: Callable[[Tensor], float]) -> Gaps:
    """The gaps after two rounds: the clean margin of every sample is 1, and the second round gained that much."""
    count = len(left)
    setting = replace(
        setting_of(Linear(0, 2), Linf(eps=0.1), samples=count), goal=torch.zeros(count, dtype=torch.int64)
    )
    problem = AttackProblem(setting)
    gaps = Gaps(count, torch.device("cpu"))
    for margin in (torch.ones(count), left + gained(left), left):
        gaps.begin_round()
        gaps.saw(problem, torch.stack([margin, torch.zeros(count)], dim=1))
        gaps.end_round(torch.arange(count))
    gaps._gains = gaps._gains[-1:]
    return gaps


# ---------------------------------------------------------------- findings


def test_hidden_gradients_are_found_and_searched_without() -> None:
    problem = attacked(setting_of(SmallNet(rounded=True), Linf(eps=0.05)))
    (finding,) = problem.notes
    assert (finding.code, finding.severity) == ("black-box-breaks", Severity.SUSPECT)
    plain = attacked(setting_of(SmallNet(), Linf(eps=0.05)))
    assert plain.notes == []
    assert problem.claimed.sum() >= 0.9 * plain.claimed.sum()


# ---------------------------------------------------------------- AutoAttack's figures


def test_no_sample_survives_that_the_official_autoattack_breaks_on_digits() -> None:
    """The official code leaves 382 of 450, with 6690 forward and 1638 backward passes a sample."""
    data = Digits()
    samples = data.load(range(450))
    model = digits_cnn_at().eval().requires_grad_(False)
    check_against(model, samples.inputs, samples.targets, Linf(eps=0.15), robust=382, passes=(6690, 1638))


@pytest.mark.slow
def test_no_more_survive_than_the_official_autoattack_leaves_on_cifar(shared_folder: Path) -> None:
    """The official code leaves 282 of the first 500, with 4451 forward and 1092 backward passes a sample."""
    onnx_model = pytest.importorskip("rbl_onnx.onnx_model").onnx_model
    mean, std = [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]
    model = onnx_model(path=str(shared_folder / "models/cifar10_resnet_2b.onnx"), mean=mean, std=std)
    with np.load(shared_folder / "data/cifar10_test_5k.npz") as data:
        inputs = torch.from_numpy(data["images"][:500]).permute(0, 3, 1, 2).float().div(255).contiguous()
        labels = torch.from_numpy(data["labels"][:500]).long()
    check_against(model, inputs, labels, Linf(eps=2 / 255), robust=282, passes=(4451, 1092))


def check_against(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    *,
    robust: int,
    passes: tuple[float, float],
) -> None:
    """At most as many survive, with a twelfth of the forward and a sixth of the backward passes."""
    right = predict_in_batches(model, inputs, 256).argmax(1) == labels
    ids = [str(index) for index in range(len(inputs))]
    setting = ProblemSetting(
        model=model,
        objective=Untargeted(),
        threat_model=threat_model,
        clean=inputs,
        goal=labels,
        open=right,
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "swift", ids, inputs.device),
        batch_size=512,
    )
    problem = attacked(setting)
    assert int((right & ~problem.claimed).sum()) <= robust
    assert problem.counted_model.forward_passes <= passes[0] / 12 * len(inputs)
    assert problem.counted_model.backward_passes <= passes[1] / 6 * len(inputs)
    assert problem.notes == []
