"""Forecasts that are distributions: scores beside closed forms and an established library, and attacks on them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustbench_lab import evaluate
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.records import Outcomes, Status
from robustbench_lab.tasks import forecasting
from robustbench_lab.tasks.forecast_errors import coverage, crps, errors, mae
from robustbench_lab.tasks.forecast_output import LEVELS, Forecast, Paths, Quantiles, centre, point, width
from robustbench_lab.tasks.forecasting_objectives import Down, Error, ForecastObjective, Narrow, Up, Widen
from robustbench_lab.testing.known_forecasters import GaussianForecaster, LinearForecaster, forecast_setting
from robustbench_lab.threat_models.series import Series

EPS = 0.1
OUTER = 2 * float(torch.special.ndtri(torch.tensor(0.9)))
"""Width of a standard normal's central 80%."""
TARGETS = {"future": torch.tensor([[[0.3], [-1.0]]]), "unit": torch.tensor([2.0]), "scale": torch.tensor([1.0])}


def attacked(model: nn.Module, objective: ForecastObjective, steps: int = 40) -> Outcomes:
    setting = forecast_setting(Series(EPS), objective, model=model, series=1)
    problem = AttackProblem(setting)
    x = problem.random_start()
    for _ in range(steps):
        _, gradient = problem.loss_and_gradient(x)
        x = problem.project(x + problem.eps / 4 * problem.steepest(gradient, x))
    problem.submit(x)
    return audit_attack(problem, setting, setting.model, passes=1).outcomes


# ---------------------------------------------------------------- what a forecast says


@given(values=st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=6), level=st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_a_level_between_two_known_ones_lies_on_the_line_between_them(values: list[float], level: float) -> None:
    levels = tuple(np.linspace(0.1, 0.9, len(values)).tolist())
    forecast = Quantiles(torch.tensor(sorted(values)).reshape(1, 1, 1, -1), levels)
    assert float(forecast.at((level,))) == pytest.approx(float(np.interp(level, levels, sorted(values))), abs=1e-5)


def test_the_point_forecast_is_the_median_and_gradients_of_paths_go_through_all_of_them() -> None:
    paths = torch.tensor([[[[1.0, 2.0, 9.0]]]], requires_grad=True)
    assert point(Paths(paths)).item() == 2.0
    (gradient,) = torch.autograd.grad(centre(Paths(paths)).sum(), paths)
    assert gradient.flatten().tolist() == pytest.approx([1 / 3] * 3)
    assert point(Quantiles(paths.detach(), (0.1, 0.5, 0.9))).item() == 2.0
    assert point(Quantiles(paths.detach()[..., :2], (0.4, 0.8))).item() == pytest.approx(1.25)
    assert width(paths[..., 0]).item() == 0


@pytest.mark.parametrize("levels", [(), (0.5, 0.5), (0.5, 0.1), (0.0, 0.5), (0.5, 1.0)])
def test_levels_that_are_none_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1 in rising order"):
        Quantiles(torch.zeros(1, 1, 1, len(levels)), levels)
    with pytest.raises(ValueError, match=r"\[N, H, C, 2\] are due"):
        Quantiles(torch.zeros(1, 1, 1, 3), (0.1, 0.9))


# ---------------------------------------------------------------- scores


@given(paths=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_score_of_paths_is_the_energy_form_over_all_pairs(paths: list[float]) -> None:
    future = 0.3
    away = np.mean([abs(one - future) for one in paths])
    apart = np.mean([abs(one - other) for one, other in itertools.product(paths, paths)])
    targets = {**TARGETS, "future": torch.tensor([[[future]]])}
    scored = float(crps(Paths(torch.tensor(paths).reshape(1, 1, 1, -1)), targets))
    assert scored == pytest.approx((away - apart / 2) / 2, abs=1e-5)


def test_the_score_of_many_gaussian_paths_is_the_closed_form() -> None:
    normal = torch.distributions.Normal(0.0, 1.0)
    evenly = normal.icdf((torch.arange(20000) + 0.5) / 20000).expand(1, 2, 1, -1)
    future = TARGETS["future"]
    # Gneiting & Raftery 2007, equation 21.
    density = normal.log_prob(future).exp()
    closed = (future * (2 * normal.cdf(future) - 1) + 2 * density - 1 / math.sqrt(math.pi)).mean() / 2
    assert float(crps(Paths(evenly), TARGETS)) == pytest.approx(float(closed), abs=1e-4)


def test_a_point_forecast_scores_its_absolute_error() -> None:
    forecast = torch.tensor([[[1.0], [1.0]]])
    assert crps(forecast, TARGETS).tolist() == pytest.approx(mae(forecast, TARGETS).tolist())
    assert float(errors(forecast, TARGETS)["quantile_loss"]) == pytest.approx(0.7 + 2.0)


def test_quantile_losses_and_coverage_are_those_of_an_established_library() -> None:
    losses = pytest.importorskip("utilsforecast.losses")
    random = np.random.default_rng(0)
    future, quantiles = random.normal(size=(3, 6)), np.sort(random.normal(size=(3, 6, 9)), axis=2)
    columns = {f"q{level}": quantiles[..., place].ravel() for place, level in enumerate(LEVELS)}
    keys = {"unique_id": np.repeat(["a", "b", "c"], 6), "ds": np.tile(np.arange(6), 3)}
    frame = pd.DataFrame({**keys, "y": future.ravel(), **columns})
    targets = {"future": torch.from_numpy(future)[:, :, None], "unit": torch.ones(3).double()}
    forecast = Quantiles(torch.from_numpy(quantiles)[:, :, None], LEVELS)

    theirs = losses.mqloss(frame, {"model": list(columns)}, np.array(LEVELS))["model"]
    assert crps(forecast, targets).tolist() == pytest.approx((2 * theirs).tolist(), rel=1e-9)
    frame["model-lo-80"], frame["model-hi-80"] = frame["q0.1"], frame["q0.9"]
    theirs = losses.coverage(frame, ["model"], 80)["model"]
    assert coverage(forecast, targets).tolist() == pytest.approx(theirs.tolist())


def test_the_weighted_quantile_loss_is_all_losses_by_all_sizes() -> None:
    outcomes = attacked(GaussianForecaster(), Error(), steps=5)
    columns = outcomes.columns
    wql = forecasting.robust_wql(outcomes)
    assert wql.value == pytest.approx(columns["robust_quantile_loss"].sum() / columns["magnitude"].sum(), rel=1e-5)
    assert forecasting.clean_wql(outcomes).value < wql.value
    assert wql.low <= wql.value <= wql.high


def test_steps_that_nobody_observed_count_in_no_error() -> None:
    generator = torch.Generator().manual_seed(0)
    values, future = torch.randn(2, 4, 2, 9, generator=generator).sort(3).values, torch.randn(2, 4, 2)
    gone = torch.tensor([[False, True], [False, False], [True, True], [False, False]]).expand(2, -1, -1)
    units = {"unit": torch.tensor([2.0, 3.0]).expand(2, 2), "scale": torch.ones(2, 2)}
    targets = {"future": future.masked_fill(gone, math.nan), **units}
    for forecast in (values[..., 4], Quantiles(values, LEVELS), Paths(values)):
        found = errors(forecast, targets)
        assert all(bool(one.isfinite().all()) for one in found.values())
        # What was forecast for them makes no difference.
        other = errors(_changed(forecast, gone), targets)
        for name in found.keys() - {"width"}:
            assert torch.equal(found[name], other[name]), name
    alike = mae(values[..., 4], targets)[0]
    seen = ~gone[0]
    by_hand = ((values[0, ..., 4] - future[0]).abs() / torch.tensor([2.0, 3.0]))[seen].mean()
    assert float(alike) == pytest.approx(float(by_hand), rel=1e-6)


def _changed(forecast: Forecast, places: Tensor) -> Forecast:
    if isinstance(forecast, Tensor):
        return forecast.masked_fill(places, 7.0)
    values = forecast.values.masked_fill(places[..., None], 7.0)
    return Quantiles(values, LEVELS) if isinstance(forecast, Quantiles) else Paths(values)


# ---------------------------------------------------------------- attacks


@pytest.mark.parametrize(("objective", "sign"), [(Widen(), 1), (Narrow(), -1)], ids=["widen", "narrow"])
def test_pgd_changes_the_width_of_linear_intervals_as_far_as_is_possible(
    objective: ForecastObjective, sign: int
) -> None:
    model = GaussianForecaster()
    columns = attacked(model, objective).columns
    furthest = OUTER * EPS * float(model.spread.abs().sum())
    assert sign * (columns["robust_width"] - columns["clean_width"]) == pytest.approx(furthest, abs=1e-4)


def test_intervals_are_broken_once_they_are_so_many_times_as_wide_or_as_narrow() -> None:
    model = GaussianForecaster()
    columns = attacked(model, Widen()).columns
    rise = columns["robust_width"] / columns["clean_width"]
    between = float(np.sort(rise)[len(rise) // 2 - 1 : len(rise) // 2 + 1].mean())
    assert (attacked(model, Widen(times=between)).robust == (rise <= between)).all()
    fall = columns["clean_width"] / attacked(model, Narrow()).columns["robust_width"]
    between = float(np.sort(fall)[len(fall) // 2 - 1 : len(fall) // 2 + 1].mean())
    assert (attacked(model, Narrow(times=between)).robust == (fall <= between)).all()


def test_points_have_no_interval_to_widen() -> None:
    with pytest.raises(SkipCell, match="points, which have no interval"):
        attacked(LinearForecaster(), Widen())
    outcomes = attacked(LinearForecaster(), Up())
    assert np.isnan(forecasting.robust_coverage(outcomes).value)


@pytest.mark.parametrize("model", [GaussianForecaster(), GaussianForecaster(paths=200)], ids=["quantiles", "paths"])
def test_pgd_moves_the_median_as_far_as_that_of_points(model: nn.Module) -> None:
    shift = attacked(model, Up()).columns["shift"]
    assert shift == pytest.approx(EPS * float(LinearForecaster().mean_weight.abs().sum()), abs=0.01)


def test_score_function_gradients_are_the_paths_own_on_average() -> None:
    history = torch.full((1, 12, 1), 10.0, requires_grad=True)

    def gradient(draws: int, kind: Any) -> Tensor:
        prediction = GaussianForecaster(seed=draws, paths=4000)(history)
        goal = {"clean": torch.zeros(1, 4, 1), "by_unit": torch.full((1, 4, 1), 0.25)}
        (found,) = torch.autograd.grad(Up(gradient=kind).loss(None, prediction, goal).sum(), history)
        return found.flatten()

    for seed in range(3):
        score, path = gradient(seed, "score"), gradient(seed, "path")
        assert float(torch.cosine_similarity(score, path, dim=0)) > 0.9
        assert float((score - path).norm() / path.norm()) < 0.4


def test_an_attack_by_score_function_gradients_comes_near_to_one_through_the_paths() -> None:
    model = GaussianForecaster(paths=500)
    by_score = attacked(model, Down(gradient="score")).columns["shift"].mean()
    through_paths = attacked(model, Down()).columns["shift"].mean()
    assert by_score < 0.9 * through_paths < 0


def test_score_function_gradients_need_paths_with_their_log_probabilities() -> None:
    with pytest.raises(SkipCell, match="for models that draw paths"):
        attacked(GaussianForecaster(), Up(gradient="score"))
    with pytest.raises(SkipCell, match="no log-probabilities"):
        Paths(torch.zeros(1, 1, 1, 3)).mean_by_score()


def test_only_the_series_aimed_at_count() -> None:
    setting = forecast_setting(Series(EPS), Up(series=[1]))
    goal = setting.goal
    assert goal["by_unit"][..., 0].any().item() is False
    assert goal["by_unit"][..., 1].sum(1).tolist() == pytest.approx([1 / 30] * 6)
    with pytest.raises(SkipCell, match=r"series=\[2\]: 2 series are forecast"):
        forecast_setting(Series(EPS), Up(series=[2]))


def test_the_worst_case_goes_by_what_the_adversary_wants() -> None:
    ones = [attacked(LinearForecaster(), Up(), steps=steps) for steps in (1, 40)]
    worst = forecasting.Forecasting().worst_case(ones)
    assert (worst.columns["shift"] == np.maximum(*(one.columns["shift"] for one in ones))).all()


# ---------------------------------------------------------------- from end to end


class Yesterday(nn.Module):
    """Yesterday once more, within 500 MW. form: what it is returned as."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, history: Tensor) -> Any:
        values = history[:, -24:, :, None] + 500 * torch.linspace(-1, 1, 9)
        return values if self.form == "tensor" else Quantiles(values, LEVELS)


def test_a_module_that_returns_quantiles_is_measured_by_its_intervals_as_well() -> None:
    result = evaluate(Yesterday("quantiles"), "victoria-demand", attacks="pgd(steps=2)", samples=20)
    (row,) = result.leaderboard.tables[0].rows
    assert row.metrics["robust_coverage"].value < row.metrics["clean_coverage"].value < 1
    assert row.metrics["clean_width"].value == pytest.approx(row.metrics["robust_width"].value)
    assert row.metrics["clean_crps"].value < row.metrics["clean_mae"].value


def test_a_tensor_that_might_be_quantiles_is_refused_in_one_line() -> None:
    (record,) = evaluate(Yesterday("tensor"), "victoria-demand", attacks="pgd(steps=1)", samples=4).records
    assert record.status is Status.SKIPPED
    due = "a forecaster must return a float tensor [N, H, C], Quantiles or Paths; not a tensor of shape [4, 24, 1, 9]"
    assert due in str(record.reason)
