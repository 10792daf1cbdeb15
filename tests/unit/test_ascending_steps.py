"""`AttackProblem.ascend` is the step that its parts make, in every kind of region and batch by batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, ThreatModel
from robustbench_lab.objectives import Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.forecasting_objectives import Error
from robustbench_lab.testing.known_forecasters import forecast_setting
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf
from robustbench_lab.threat_models.series import Series

SAMPLES, STEPS = 7, 5
SERIES: dict[str, dict[str, Any]] = {
    "linf": {},
    "l2": {"norm": "l2"},
    "last": {"last": 3},
    "relative": {"relative": True},
    "one channel": {"channels": [1]},
    "few steps": {"steps": 2},
    "smooth": {"smooth": 0.05},
    "monotone": {"monotone": True},
    "integer": {"integer": True},
}


def image_setting(threat_model: ThreatModel, objective: Untargeted, attackable: Tensor | None = None) -> ProblemSetting:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)).eval().requires_grad_(False)
    clean = torch.rand(SAMPLES, 1, 4, 4)
    return ProblemSetting(
        model=net,
        objective=objective,
        threat_model=threat_model,
        clean=clean,
        goal=net(clean).argmax(1),
        open=torch.ones(SAMPLES, dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "test", [str(index) for index in range(SAMPLES)], torch.device("cpu")),
        batch_size=SAMPLES,
        attackable=attackable,
    )


def settings() -> dict[str, ProblemSetting]:
    reach = torch.rand(SAMPLES, 1, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.3
    images = {
        "images, linf": image_setting(Linf(0.1), Untargeted()),
        "images, run on": image_setting(Linf(0.3), Untargeted(stop_on_success=False)),
        "images, l2": image_setting(L2(0.5), Untargeted()),
        "images, l1": image_setting(L1(1.0), Untargeted()),
        "images, masked": image_setting(Linf(0.1), Untargeted(), reach),
    }
    return images | {f"series, {name}": forecast_setting(Series(0.2, **form), Error()) for name, form in SERIES.items()}


def by_parts(problem: AttackProblem, x: Tensor, size: float) -> Tensor:
    _, gradient = problem.loss_and_gradient(x)
    return problem.project(x.add_(problem.steepest(gradient, x), alpha=size))


@pytest.mark.parametrize("batch_size", [2, 100])
@pytest.mark.parametrize("name", settings())
def test_a_step_is_the_projected_step_along_the_steepest_direction(name: str, batch_size: int) -> None:
    setting = replace(settings()[name], batch_size=batch_size)
    at_once, apart = AttackProblem(setting), AttackProblem(setting)
    x, expected = at_once.random_start(), apart.random_start()
    for _ in range(STEPS):
        x, expected = at_once.ascend(x, at_once.eps / 3), by_parts(apart, expected, apart.eps / 3)
        assert torch.equal(x, expected)
    assert torch.equal(at_once.claimed, apart.claimed)
    assert torch.equal(at_once.candidates, apart.candidates)
    assert at_once.trace.findings() == apart.trace.findings()
    counts = [(one.counted_model.forward_passes, one.counted_model.backward_passes) for one in (at_once, apart)]
    assert counts == [(STEPS * len(setting.clean),) * 2] * 2


def test_the_diagnostics_of_a_step_see_every_batch() -> None:
    """The gradients of the first batch are fine, those of the last are 0."""
    setting = replace(image_setting(Linf(0.1), Untargeted()), batch_size=3)

    class Saturated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            dead = (x == setting.clean[-1]).flatten(1).all(1)
            return torch.where(dead[:, None], 0 * setting.model(x), setting.model(x))

    problem = AttackProblem(replace(setting, model=Saturated()))
    problem.new_search()
    problem.ascend(setting.clean.clone(), 0.01)
    assert ("zero-gradient", 1.0) in [(one.code, one.value) for one in problem.trace.findings()]


def test_a_problem_without_open_samples_is_left_as_it_is() -> None:
    setting = image_setting(Linf(0.1), Untargeted())
    problem = AttackProblem(replace(setting, open=torch.zeros(SAMPLES, dtype=torch.bool)))
    assert problem.ascend(problem.clean.clone(), 0.1).shape == (0, 1, 4, 4)
