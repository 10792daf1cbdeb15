"""What an adversary wants of a forecaster, on one whose optimum is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.errors import UsageError
from robustbench_lab.evaluation.attack_audit import Audit, audit_attack
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.tasks.forecasting_objectives import Down, Error, ForecastObjective, Target, Up
from robustbench_lab.testing.known_forecasters import LinearForecaster, forecast_setting
from robustbench_lab.threat_models.series import Series

EPS = 0.1
OBJECTIVES = [Error(), Error(labels="self"), Up(), Down(), Target(), Target(factor=0.5), Target(level=40.0)]


def pgd(problem: AttackProblem, loss: str | None = None, steps: int = 20) -> None:
    x = problem.random_start()
    for _ in range(steps):
        _, gradient = problem.loss_and_gradient(x, loss)
        x = problem.project(x + problem.eps / 4 * problem.steepest(gradient, x))
    problem.submit(x)


@pytest.mark.parametrize(("objective", "sign"), [(Up(), 1), (Down(), -1)], ids=["up", "down"])
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_pgd_moves_a_linear_forecast_as_far_as_is_possible(
    objective: ForecastObjective, sign: int, norm: Any, dual: int
) -> None:
    setting = forecast_setting(Series(EPS, norm), objective, series=1)
    problem = AttackProblem(setting)
    pgd(problem, steps=40)
    columns = audit_attack(problem, setting, setting.model, passes=1).outcomes.columns
    best = EPS * float(LinearForecaster().mean_weight.norm(dual))
    assert sign * columns["shift"] == pytest.approx(best, abs=1e-4)


def test_steps_and_series_out_of_reach_add_nothing_to_the_shift() -> None:
    setting = forecast_setting(Series(EPS, last=3, channels=[1]), Up())
    problem = AttackProblem(setting)
    pgd(problem)
    columns = audit_attack(problem, setting, setting.model, passes=1).outcomes.columns
    best = EPS * float(LinearForecaster().mean_weight[-3:].abs().sum()) / 2  # the mean of two series, one of them still
    assert columns["shift"] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_pgd_harms_more_than_nothing_and_the_core_confirms_it(objective: ForecastObjective) -> None:
    setting = forecast_setting(Series(EPS), objective)
    problem = AttackProblem(setting)
    pgd(problem)
    audit = audit_attack(problem, setting, setting.model, passes=1)
    gain = audit.outcomes.columns["damage"] - setting.clean_measure["damage"].numpy()
    assert (gain >= 0).all()
    assert gain.sum() > 0
    assert not [finding for finding in audit.problems if finding.code != "loss-still-rises"]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_losses_and_damage_are_of_each_window_by_itself(objective: ForecastObjective) -> None:
    setting = forecast_setting(Series(EPS), objective)
    whole = AttackProblem(setting)
    away = setting.clean + 0.01
    loss, gradient = whole.loss_and_gradient(away)
    for window in range(len(away)):
        part = whole.part(torch.tensor([window]))
        one_loss, one_gradient = part.loss_and_gradient(away[window : window + 1])
        assert torch.allclose(one_loss, loss[window], atol=1e-5)
        assert torch.allclose(one_gradient[0], gradient[window], atol=1e-5)


def test_the_models_own_forecast_as_label_has_a_slope_where_the_search_begins() -> None:
    setting = forecast_setting(Series(EPS), Error(labels="self"), samples=6, batch_size=6)
    loss, gradient = AttackProblem(setting).loss_and_gradient(setting.clean)
    assert (loss == 0).all()
    assert (gradient.abs().amax((1, 2)) > 0).all()


def test_an_adversary_without_the_truth_raises_the_error_less_than_one_that_knows_it() -> None:
    errors = {}
    for labels in ("oracle", "self"):
        setting = forecast_setting(Series(EPS), Error(labels=labels), samples=40)
        problem = AttackProblem(setting)
        pgd(problem)
        errors[labels] = audit_attack(problem, setting, setting.model, passes=1).outcomes.columns["robust_mase"].mean()
    assert setting.clean_measure["mase"].mean() < errors["self"] < errors["oracle"]


def test_a_window_is_broken_above_so_many_times_its_clean_error() -> None:
    setting = forecast_setting(Series(EPS), Error())
    forecast, future = setting.goal["clean"], setting.goal["future"]
    for objective in (Error(), Up(), Target()):
        assert not objective.succeeded(future + 1.99 * (forecast - future), setting.goal).any()
        assert objective.succeeded(future + 2.01 * (forecast - future), setting.goal).all()
    assert not Error(times=3).succeeded(future + 2.9 * (forecast - future), setting.goal).any()


def test_a_forecast_that_is_no_number_is_broken_and_the_worst_of_all() -> None:
    setting = forecast_setting(Series(EPS), Error())
    nothing = torch.full_like(setting.goal["clean"], torch.nan)
    assert Error().succeeded(nothing, setting.goal).all()
    assert (Error().damage(nothing, setting.goal) == torch.inf).all()


def test_targets_are_a_factor_or_a_level() -> None:
    setting = forecast_setting(Series(EPS), Target(factor=0.5))
    assert torch.equal(setting.goal["label"], 0.5 * setting.goal["clean"])
    assert (forecast_setting(Series(EPS), Target(level=7.0)).goal["label"] == 7).all()
    with pytest.raises(UsageError, match="a factor or a level, not both"):
        Target(factor=2.0, level=7.0)


def test_an_unknown_loss_is_named() -> None:
    problem = AttackProblem(forecast_setting(Series(EPS), Error()))
    with pytest.raises(UsageError, match=r"there is no loss .mea..*Did you mean .mae."):
        problem.loss_and_gradient(problem.clean, "mea")


def attacked(setting: ProblemSetting, name: str, **params: Any) -> Audit:
    """What the core makes of an attack of the catalog."""
    catalog = open_catalog([])
    problem = AttackProblem(setting)
    resolved = catalog.resolve("attacks", Component(name, params), task="forecasting")
    catalog.build("attacks", resolved, problem, task="forecasting")
    return audit_attack(problem, setting, setting.model, passes=1)


def test_noise_costs_much_less_than_pgd() -> None:
    rise = {}
    for name in ("noise", "pgd"):
        columns = attacked(forecast_setting(Series(EPS), Error(), samples=40), name).outcomes.columns
        rise[name] = (columns["robust_mase"] - columns["clean_mase"]).mean()
    assert 0 < rise["noise"] < rise["pgd"] / 2


@pytest.mark.parametrize("objective", [Error(), Error(labels="self"), Error(series=[1], times=1.01)], ids=repr)
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=["by step", "by series"])
def test_all_that_is_told_at_once_is_what_is_told_one_by_one(objective: Error, order: tuple[int, ...]) -> None:
    setting = forecast_setting(Series(EPS), objective)
    setting.targets["future"][0, 1, 0] = torch.nan
    clean = setting.model(setting.clean)
    goal = objective.prepare(clean, setting.targets)
    forecast = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    forecast = forecast.permute(order).contiguous().permute(order)  # in this order in memory
    forecast[1], forecast[2] = torch.nan, clean[2]
    leaf = forecast.clone().requires_grad_()
    loss = objective.loss(None, leaf, goal)
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    success, damage = objective.succeeded(forecast, goal), objective.damage(forecast, goal)
    assert success.any()
    told = objective.assess(None, forecast, dict(goal))
    assert told is not None
    assert told.slope.stride() == forecast.stride()
    torch.testing.assert_close(told.loss, loss.detach(), equal_nan=True)
    for found, expected in ((told.slope, slope), (told.damage, damage), (told.success, success)):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_what_is_told_at_once_is_left_to_the_objective_itself_where_it_may_mean_something_else() -> None:
    class DoubledError(Error):
        def loss(self, name: str | None, prediction: Any, goal: Any) -> torch.Tensor:
            return 2 * super().loss(name, prediction, goal)

    setting = forecast_setting(Series(EPS), DoubledError())
    forecast = setting.model(setting.clean)
    assert DoubledError().assess(None, forecast, setting.goal) is None
    assert Error().assess("mse", forecast, setting.goal) is None
    assert Error(gradient="score").assess(None, forecast, setting.goal) is None
    plain, doubled = (
        AttackProblem(forecast_setting(Series(EPS), one)).loss_and_gradient(setting.clean + 1)
        for one in (Error(), DoubledError())
    )
    for one, twice in zip(plain, doubled, strict=True):
        torch.testing.assert_close(2 * one, twice)
