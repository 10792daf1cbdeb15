"""The task `forecasting`: metrics beside an established library, block bootstrap, worst case, ranks, preflight."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lab import evaluate
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import UsageError
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.ranking.leaderboard_definition import LeaderboardDefinition
from robustbench_lab.ranking.stored_leaderboard import rank
from robustbench_lab.records import Outcomes, Severity
from robustbench_lab.result_store.packing import pack_outcomes, unpack_outcomes
from robustbench_lab.tasks import forecasting
from robustbench_lab.tasks.block_bootstrap import block_counts, block_length
from robustbench_lab.tasks.forecast_errors import mae, mase, mse, smape
from robustbench_lab.tasks.forecasting import Forecasting
from robustbench_lab.tasks.forecasting_objectives import Error
from robustbench_lab.testing.example_results import example_result
from robustbench_lab.testing.known_forecasters import LinearForecaster, forecast_setting
from robustbench_lab.threat_models.series import Series

TASK = Forecasting()
METRICS = (
    "clean_mase",
    "robust_mase",
    "clean_mae",
    "robust_mae",
    "clean_mse",
    "robust_mse",
    "clean_rmse",
    "robust_rmse",
    "clean_smape",
    "robust_smape",
    "error_rise",
    "forecast_shift",
    "broken_rate",
)


def attacked(eps: float, seed: int = 0, samples: int = 12, steps: int = 10, **params: Any) -> Outcomes:
    setting = forecast_setting(Series(eps, **params), Error(), samples=samples, seed=seed)
    problem = AttackProblem(setting)
    x = problem.random_start()
    for _ in range(steps):
        _, gradient = problem.loss_and_gradient(x)
        x = problem.project(x + eps / 4 * problem.steepest(gradient, x))
    problem.submit(x)
    return audit_attack(problem, setting, setting.model, passes=1).outcomes


def test_errors_are_those_of_an_established_library() -> None:
    losses = pytest.importorskip("utilsforecast.losses")
    season, random = 4, np.random.default_rng(0)
    training = random.normal(size=(3, 40)).cumsum(1)  # three series
    future, forecast = random.normal(size=(2, 3, 6))
    scale = np.abs(training[:, season:] - training[:, :-season]).mean(1)
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b", "c"], 6),
            "ds": np.tile(np.arange(40, 46), 3),
            "y": future.ravel(),
            "model": forecast.ravel(),
        }
    )
    past = pd.DataFrame(
        {"unique_id": np.repeat(["a", "b", "c"], 40), "ds": np.tile(np.arange(40), 3), "y": training.ravel()}
    )
    targets = {
        "future": torch.from_numpy(future)[:, :, None],
        "scale": torch.from_numpy(scale),
        "unit": torch.ones(3, dtype=torch.float64),
    }
    given_forecast = torch.from_numpy(forecast)[:, :, None]
    for ours, theirs in (
        (mae, losses.mae(frame, ["model"])),
        (mse, losses.mse(frame, ["model"])),
        (mase, losses.mase(frame, ["model"], seasonality=season, train_df=past)),
    ):
        assert ours(given_forecast, targets).tolist() == pytest.approx(theirs["model"].tolist(), rel=1e-9)
    # Theirs is from 0 to 1; the competitions' is from 0 to 2.
    half = losses.smape(frame, ["model"])["model"].to_numpy()
    assert smape(given_forecast, targets).numpy() == pytest.approx(2 * half, rel=1e-9)


def test_errors_of_several_series_are_means_of_each_in_its_own_unit() -> None:
    future = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    forecast = torch.tensor([[[1.0, 10.0], [3.0, 30.0]]])
    targets = {"future": future, "unit": torch.tensor([[1.0, 10.0]]), "scale": torch.tensor([[2.0, 5.0]])}
    assert mae(forecast, targets).tolist() == [2.0]
    assert mse(forecast, targets).tolist() == [5.0]
    assert mase(forecast, targets).tolist() == [(1.0 + 4.0) / 2]
    assert smape(forecast, targets).tolist() == [2.0]
    assert smape(future, targets).tolist() == [0.0]


def test_metrics_are_means_and_roots_over_windows_and_lie_in_their_intervals() -> None:
    outcomes = attacked(0.1)
    columns = outcomes.columns
    value = {name: getattr(forecasting, name)(outcomes) for name in METRICS}
    assert value["robust_mase"].value == pytest.approx(columns["robust_mase"].mean())
    assert value["clean_rmse"].value == pytest.approx(np.sqrt(columns["clean_mse"].mean()))
    assert value["error_rise"].value == pytest.approx(columns["robust_mase"].mean() / columns["clean_mase"].mean())
    assert value["broken_rate"].value == pytest.approx(1 - outcomes.robust.mean())
    assert value["robust_mase"].value > value["clean_mase"].value
    for name, one in value.items():
        assert one.low <= one.value <= one.high, name
        assert one.low < one.high, name


def test_a_share_of_0_is_not_said_to_be_sure() -> None:
    outcomes = dataclasses.replace(attacked(0.1), robust=np.ones(12, dtype=bool))
    assert forecasting.broken_rate(outcomes).high == pytest.approx(1 - 0.025 ** (1 / 12))


def test_a_forecast_without_limit_has_an_error_without_limit_and_no_metric_raises() -> None:
    outcomes = attacked(0.1)
    worst = outcomes.columns["robust_mase"].copy()
    worst[3] = np.inf
    endless = dataclasses.replace(outcomes, columns={**outcomes.columns, "robust_mase": worst})
    assert forecasting.robust_mase(endless).value == np.inf
    assert forecasting.error_rise(endless).value == np.inf
    assert np.isfinite(forecasting.clean_mase(endless).high)
    perfect = {**outcomes.columns, "clean_mase": np.zeros_like(worst)}
    assert np.isnan(forecasting.error_rise(dataclasses.replace(outcomes, columns=perfect)).value)


# ---------------------------------------------------------------- block bootstrap


@given(windows=st.integers(1, 80), block=st.integers(1, 80))
@settings(max_examples=40, deadline=None)
def test_each_resample_is_of_as_many_windows_in_runs_of_neighbours(windows: int, block: int) -> None:
    block = min(block, windows)
    counts = block_counts(windows, block, resamples=20)
    assert (counts.sum(1) == windows).all()
    if block > 1 and windows > block:
        # Within a block neighbours are drawn together: at most 2 edges a block, around the circle.
        edges = (counts != np.roll(counts, 1, axis=1)).sum(1)
        assert (edges <= 2 * -(-windows // block)).all()


def test_every_window_is_drawn_equally_often_on_average() -> None:
    drawn = block_counts(50, 7, resamples=4000).mean(0)
    assert drawn == pytest.approx(np.ones(50), abs=0.1)


def test_blocks_are_at_least_as_long_as_windows_overlap() -> None:
    assert block_length(219) == 6
    assert block_length(219, overlapping=24) == 24
    assert block_length(5, overlapping=24) == 5
    steps = np.full(5, 24)
    assert forecasting._in_time({"start": np.arange(0, 100, 24), "steps": steps}, 5)[1] == 1
    assert forecasting._in_time({"start": np.arange(0, 20, 4), "steps": steps}, 5)[1] == 6
    assert forecasting._in_time({"steps": steps}, 5)[1] == 1


def test_blocks_are_drawn_within_a_series_wherever_its_windows_stand() -> None:
    columns = {"start": np.array([8, 0, 4, 8, 0, 4]), "block": np.array([1, 0, 1, 0, 1, 0]), "steps": np.full(6, 8)}
    order, overlapping = forecasting._in_time(columns, 6)
    assert order.tolist() == [1, 5, 3, 4, 2, 0]
    assert overlapping == 2


def test_errors_that_are_alike_in_neighbours_have_a_wider_interval_than_shuffled_ones() -> None:
    outcomes = attacked(0.1, samples=120)
    slow = np.sin(np.arange(120) / 8).astype(np.float32) + 2

    def width(values: Any) -> float:
        one = forecasting.robust_mase(
            dataclasses.replace(outcomes, columns={**outcomes.columns, "robust_mase": values})
        )
        return one.high - one.low

    assert width(slow) > 1.5 * width(np.random.default_rng(0).permutation(slow))


# ---------------------------------------------------------------- rows


def test_the_worst_case_takes_each_window_from_the_attack_with_the_largest_error() -> None:
    ones = [attacked(0.05, steps=1), attacked(0.1, steps=2), attacked(0.2, last=2)]
    worst = TASK.worst_case(ones)
    errors = np.stack([one.columns["robust_mase"] for one in ones])
    assert (worst.columns["robust_mase"] == errors.max(0)).all()
    assert len(set(errors.argmax(0).tolist())) > 1
    for window, attack in enumerate(errors.argmax(0)):
        assert all(worst.columns[name][window] == ones[attack].columns[name][window] for name in worst.columns)
    assert (worst.robust == np.logical_and.reduce([one.robust for one in ones])).all()
    broken = [np.where(np.isnan(one.distance), np.inf, one.distance) for one in ones]
    assert (np.where(np.isnan(worst.distance), np.inf, worst.distance) == np.min(broken, axis=0)).all()


def test_the_lowest_error_ranks_first_and_rows_that_cannot_be_told_apart_share_a_rank() -> None:
    weak, strong = attacked(0.02, samples=60), attacked(0.3, samples=60)
    nearly = {**weak.columns, "robust_mase": weak.columns["robust_mase"][::-1].copy()}
    rows = {"strong": strong, "weak": weak, "weak reversed": dataclasses.replace(weak, columns=nearly)}
    records = []
    for name, outcomes in rows.items():
        record = example_result(outcomes.robust.tolist(), model=name)
        cell = dataclasses.replace(record.cell, task="forecasting")
        records.append(dataclasses.replace(record, cell=cell, outcomes=outcomes, metrics={}))
    (table,) = rank(records, LeaderboardDefinition(), open_catalog([])).tables
    assert table.main_metric.name == "robust_mase"
    assert {row.name: row.rank for row in table.rows} == {"weak": 1, "weak reversed": 1, "strong": 3}
    assert table.rows[-1].name == "strong"


def test_outcomes_survive_the_store_and_windows_of_units_are_joined() -> None:
    outcomes = attacked(0.05)
    again = unpack_outcomes(pack_outcomes(outcomes), len(outcomes))
    assert {name: column.dtype for name, column in again.columns.items()} == {
        name: column.dtype for name, column in outcomes.columns.items()
    }
    assert forecasting.robust_mase(again) == forecasting.robust_mase(outcomes)


# ---------------------------------------------------------------- preflight


def test_preflight_names_what_is_no_forecaster() -> None:
    targets = forecast_setting(Series(0.1), Error()).targets
    future = targets["future"]
    for prediction, said in ((torch.zeros(6, 4), r"shape \[6, 4\]"), ({"mean": future}, "a dict"), (None, "NoneType")):
        (finding,) = TASK.examine(TASK.kept(prediction), targets, None)
        assert (finding.code, finding.severity) == ("not-a-forecast", Severity.FATAL)
        assert re.search(said, finding.message)
    (finding,) = TASK.examine(TASK.kept(torch.zeros(6, 5, 2)), targets, None)
    assert (finding.code, finding.severity) == ("horizon", Severity.FATAL)
    assert "forecasts 5 steps of 2 series, the data ask for 4 of 2" in finding.message
    (finding,) = TASK.examine(TASK.kept(future * torch.nan), targets, None)
    assert (finding.code, finding.severity) == ("nan-forecast", Severity.FATAL)
    (finding,) = TASK.examine(TASK.kept(future), {**targets, "scale": 0 * targets["scale"]}, None)
    assert (finding.code, finding.severity) == ("series-scale", Severity.FATAL)
    (finding,) = TASK.examine(TASK.kept(future + 4 * targets["unit"][:, None]), targets, None)
    assert (finding.code, finding.severity) == ("forecast-far-off", Severity.SUSPECT)
    assert TASK.examine(TASK.kept(future), targets, None) == []


# ---------------------------------------------------------------- from Python


def test_a_forecaster_and_windows_at_hand_are_evaluated_from_python() -> None:
    setting = forecast_setting(Series(0.1), Error())
    targets = {name: setting.targets[name].numpy() for name in ("future", "scale", "unit")}
    result = evaluate(LinearForecaster(), (setting.clean, targets), attacks=["pgd(steps=20)"])
    (table,) = result.leaderboard.tables
    assert (table.norm, table.eps, table.sort) == ("series", 0.1, "robust_mase")
    metrics = table.rows[0].metrics
    assert metrics["robust_mase"].value > 1.1 * metrics["clean_mase"].value
    with pytest.raises(UsageError, match=r"missing: scale"):
        evaluate(
            LinearForecaster(), (setting.clean, {"future": targets["future"], "unit": targets["unit"]}), attacks=[]
        )
    with pytest.raises(UsageError, match=r"unit \[5, 2\] do not fit together: 6 histories need"):
        evaluate(LinearForecaster(), (setting.clean, {**targets, "unit": targets["unit"][:5]}), attacks=[])
