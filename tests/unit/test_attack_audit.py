"""The core believes nothing an attack says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Region
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.objectives import Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.records import Severity
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.norm_balls import Linf

SAMPLES = 12


class MeanAbove(nn.Module):
    """Class 1 where the mean is above one half, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def given_setting(eps: float = 0.1) -> ProblemSetting:
    clean = torch.full((SAMPLES, 1, 2, 2), 0.45)
    is_open = torch.ones(SAMPLES, dtype=torch.bool)
    is_open[0] = False
    return ProblemSetting(
        model=MeanAbove(),
        objective=Untargeted(),
        threat_model=Linf(eps=eps),
        clean=clean,
        goal=torch.zeros(SAMPLES, dtype=torch.int64),
        open=is_open,
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "audit", [str(one) for one in range(SAMPLES)], torch.device("cpu")),
        batch_size=5,
    )


def test_an_honest_attack_breaks_what_it_breaks() -> None:
    setting = given_setting()
    problem = AttackProblem(setting)
    problem.submit(problem.clean + 0.1)
    audit = audit_attack(problem, setting, setting.model, passes=1)
    assert audit.problems == ()
    assert not audit.outcomes.robust.any()
    assert audit.outcomes.clean_correct.tolist() == [False] + [True] * 11
    assert audit.outcomes.distance[0] == 0
    np.testing.assert_allclose(audit.outcomes.distance[1:], 0.1, atol=1e-6)


class Boundless:
    """A region of a plugin that forgets the data's range."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def __getattr__(self, name: str) -> object:
        return getattr(self._region, name)

    def contains(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), dtype=torch.bool)


class BoundlessModel(Linf):
    def around(self, clean: Tensor, bounds: Bounds, targets: object = None) -> Boundless:
        return Boundless(super().around(clean, bounds, targets))


def test_whatever_a_threat_model_allows_inputs_stay_in_the_range_of_the_data() -> None:
    setting = replace(given_setting(), threat_model=BoundlessModel(eps=0.9))
    problem = AttackProblem(setting)
    inside, outside = problem.clean + 0.55, problem.clean + 0.56
    problem.submit(torch.cat([inside[:6], outside[6:]]))
    audit = audit_attack(problem, setting, setting.model, passes=1)
    assert audit.outcomes.robust.tolist() == [False] * 7 + [True] * 5


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (0.2, "outside the ball"),
        (float("nan"), "not a number"),
        (float("inf"), "infinite"),
    ],
)
def test_a_candidate_outside_the_threat_model_counts_as_a_failed_attack(change: float, what: str) -> None:
    setting = given_setting()
    problem = AttackProblem(setting)
    problem.submit(problem.clean + change)
    audit = audit_attack(problem, setting, setting.model, passes=1)
    assert audit.outcomes.robust.tolist() == [False] + [True] * 11, what
    assert np.isnan(audit.outcomes.distance[1:]).all()
    (finding,) = audit.problems
    assert (finding.code, finding.value, finding.severity) == ("outside-threat-model", 11, Severity.FATAL)


def test_leaving_the_datas_range_counts_as_a_failed_attack() -> None:
    setting = given_setting(eps=0.9)
    problem = AttackProblem(setting)
    problem.submit(problem.clean + 0.8)
    audit = audit_attack(problem, setting, setting.model, passes=1)
    assert audit.outcomes.robust[1:].all()


def test_success_on_another_model_is_not_taken_over() -> None:
    setting = given_setting()
    problem = AttackProblem(setting)
    problem.submit(problem.clean + 0.1)
    assert problem.claimed[1:].all()

    class Unmoved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    audit = audit_attack(problem, setting, Unmoved(), passes=1)
    assert audit.outcomes.robust[1:].all()
    (finding,) = audit.problems
    assert (finding.code, finding.value) == ("unconfirmed-success", 11)


def test_on_a_randomized_model_the_majority_of_passes_decides() -> None:
    setting = given_setting()
    problem = AttackProblem(setting)
    problem.submit(problem.clean + 0.1)

    class BrokenEveryThirdTime(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            type(self).calls += 1
            broken = (type(self).calls - 1) // 3 % 3 == 0  # three batches make one pass
            return torch.tensor([[0.0, 1.0]] if broken else [[1.0, 0.0]]).expand(len(x), 2)

    audit = audit_attack(problem, setting, BrokenEveryThirdTime(), passes=5)
    assert audit.outcomes.robust[1:].all()


def test_a_minimum_norm_result_beyond_the_budget_is_robust_and_keeps_its_distance() -> None:
    setting = replace(given_setting(eps=0.1), minimum_norm=True)
    problem = AttackProblem(setting)
    reach = torch.linspace(0.06, 0.2, SAMPLES).reshape(-1, 1, 1, 1)[1:]
    problem.submit(problem.clean + reach)
    audit = audit_attack(problem, setting, setting.model, passes=1)
    assert audit.problems == ()
    np.testing.assert_allclose(audit.outcomes.distance[1:], reach.flatten(), atol=1e-6)
    assert audit.outcomes.robust[1:].tolist() == (reach.flatten() > 0.1).tolist()


def test_a_minimum_norm_attack_stays_within_the_bounds() -> None:
    setting = replace(given_setting(), minimum_norm=True)
    problem = AttackProblem(setting)
    problem.submit(problem.clean + 0.7)
    audit = audit_attack(problem, setting, setting.model, passes=1)
    assert audit.outcomes.robust[1:].all()
    assert [finding.code for finding in audit.problems] == ["outside-threat-model"]
