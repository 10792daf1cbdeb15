"""The naive forecasters, and those that statsmodels fits to each history, against closed forms and statsmodels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.forecasting.theta import ThetaModel
from torch import Tensor

from rbl_statistical.arima_forecaster import arima
from rbl_statistical.ets_forecaster import ets
from rbl_statistical.naive_forecasters import drift, naive, seasonal_naive
from rbl_statistical.theta_forecaster import theta
from robustbench_lab.api import evaluate
from robustbench_lab.contracts import Samples
from robustbench_lab.errors import UsageError
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.plugin_tools.series_channels import AnyHorizon, SeriesChannels, Univariate
from robustbench_lab.records import Status
from robustbench_lab.tasks.forecast_output import LEVELS, Quantiles

SEASON, HORIZON = 6, 8


def windows(steps: int = 48, count: int = 2, series: int = 2) -> Tensor:
    """Seasons with noise; the second series has another level."""
    generator = torch.Generator().manual_seed(0)
    season = 3 * torch.sin(2 * torch.pi * torch.arange(steps) / SEASON)
    noise = torch.randn((count, steps, series), generator=generator)
    return 20 + season[:, None] + noise + 10 * torch.arange(series)


# ---------------------------------------------------------------- naive


@given(st.integers(1, 7), st.integers(1, 20))
def test_the_seasonal_naive_forecast_is_the_value_whole_seasons_before(season: int, horizon: int) -> None:
    x = windows(12)
    made = seasonal_naive(season=season, horizon=horizon)(x)
    for step in range(horizon):
        back = -(-(step + 1) // season) * season
        assert torch.equal(made[:, step], x[:, 12 + step - back])


def test_naive_and_drift_are_lines() -> None:
    x = windows(12)
    assert torch.equal(naive(horizon=3)(x), x[:, -1:].expand(-1, 3, -1))
    line = torch.arange(15.0)[None, :, None] * torch.tensor([2.0, -1.0])
    torch.testing.assert_close(drift(horizon=3)(line[:, :12]), line[:, 12:])


def test_their_gradient_is_the_true_one() -> None:
    x = windows(12, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(seasonal_naive(season=3, horizon=4)(x)[0, :, 0].sum(), x)
    wanted = torch.zeros(12, 2)
    wanted[-3:, 0] = torch.tensor([2.0, 1, 1])
    assert torch.equal(gradient[0], wanted)
    (gradient,) = torch.autograd.grad(drift(horizon=2)(x)[0, 1, 0], x)
    assert gradient[0, [0, -1], 0].tolist() == pytest.approx([-2 / 11, 13 / 11])


def test_a_history_shorter_than_a_season_is_one_line() -> None:
    with pytest.raises(UsageError, match="takes histories of 24 steps, the data give 12: give the dataset history=24"):
        seasonal_naive(horizon=4)(windows(12))


# ---------------------------------------------------------------- horizons


@pytest.mark.parametrize("name", ["naive", "seasonal-naive(season=6)", "drift", "theta(season=6)"])
def test_a_forecaster_takes_the_horizon_of_each_dataset(name: str, tmp_path: Path) -> None:
    """One model, in one process, for datasets that ask for more and for less."""
    times = pd.date_range("2024-01-01", periods=240, freq="h")
    values = 20 + windows(240, 1, 1)[0, :, 0].numpy()
    pd.DataFrame({"time": times, "load": values}).to_csv(tmp_path / "load.csv", index=False)
    data = [f"csv(path='{tmp_path}/load.csv', time='time', history=24, horizon={steps}, season=6)" for steps in (9, 4)]
    fields = {
        "models": [name],
        "datasets": data,
        "attacks": ["noise"],
        "samples": 2,
        "database": str(tmp_path / "r.db"),
    }
    result = run_experiment(ExperimentSpec(**fields), open_catalog())
    records = {one.cell.dataset.params["horizon"]: one for one in result.records}
    assert {steps: (one.status, one.reason) for steps, one in records.items()} == {
        9: (Status.OK, None),
        4: (Status.OK, None),
    }
    assert {steps: set(one.outcomes.columns["steps"].tolist()) for steps, one in records.items()} == {9: {9}, 4: {4}}
    assert len({one.cell.cell_id for one in records.values()}) == 2


def test_a_horizon_that_was_asked_for_stays_and_one_that_nobody_knows_is_one_line() -> None:
    samples = Samples(windows(12), {"future": torch.zeros(2, 5, 2)})
    free, fixed = naive(), naive(horizon=3)
    with pytest.raises(UsageError, match="naive: no dataset says how many steps to forecast: give it a horizon"):
        free(windows(12))
    for model, steps in ((free, 5), (fixed, 3)):
        model.follow(samples)
        assert model(windows(12)).shape == (2, steps, 2)


@given(own=st.integers(1, 9), asked=st.integers(1, 9), data=st.integers(1, 9))
def test_no_network_is_asked_for_more_steps_than_it_knows(own: int, asked: int, data: int) -> None:
    samples = Samples(windows(12), {"future": torch.zeros(2, data, 2)})
    free = AnyHorizon("it", None, usual=own, most=own)
    assert free.horizon == own
    free.follow(samples)
    assert free.horizon == min(own, data)
    if asked > own:
        with pytest.raises(UsageError, match=f"it: horizon={asked}: it forecasts {own} steps"):
            AnyHorizon("it", asked, usual=own, most=own)
        return
    told = AnyHorizon("it", asked, usual=own, most=own)
    told.follow(samples)
    assert told.horizon == asked


# ---------------------------------------------------------------- channels


class Last(Univariate):
    """The last two values, in turn, as quantiles."""

    def one_series(self, history: Tensor) -> Tensor:
        return torch.stack([history[:, -2:], history[:, -2:] + 1], 2)


def test_the_first_series_are_forecast_from_their_past_alone() -> None:
    x = windows(12, 3, 4)
    made = Last(SeriesChannels("last", series=2, known=(3,)), 2, (0.25, 0.75))(x)
    assert made.values.shape == (3, 2, 2, 2)
    assert torch.equal(made.values[..., 0], x[:, 8:10, :2])  # the last two steps are the future of channel 3
    everything = Last(SeriesChannels("last", known=(1,)), 2, (0.25, 0.75))(x)
    assert torch.equal(everything.values[..., 0], x[:, 8:10, [0, 2, 3]])


def test_covariates_of_the_past_are_not_forecast_and_each_dataset_has_its_own_number_of_series() -> None:
    x = windows(12, 3, 4)
    model, told = naive(), naive(series=1)
    for series in (3, 2):
        for one in (model, told):
            one.follow(Samples(x, {"future": torch.zeros(3, 5, series)}))
        assert torch.equal(model(x)[:, 0], x[:, -1, :series])
        assert torch.equal(told(x)[:, 0], x[:, -1, :1])
    among_them = naive(known=[1])
    among_them.follow(Samples(x, {"future": torch.zeros(3, 2, 3)}))
    assert torch.equal(among_them(x)[:, 0], x[:, -3, [0, 2, 3]])


@pytest.mark.parametrize(
    ("channels", "problem"),
    [
        (SeriesChannels("it", series=5), "it: series=5: the data have 4 channels"),
        (SeriesChannels("it", known=(4,)), r"it: known=\[4\]: the data have 4 channels, from 0"),
    ],
)
def test_channels_that_are_not_there_are_one_line(channels: SeriesChannels, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Last(channels, 2)(windows(12, 1, 4))


# ---------------------------------------------------------------- fitted to each history


def ets_of(history: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    model = ETSModel(history, error="add", seasonal="add", seasonal_periods=SEASON, initialization_method="heuristic")
    made = model.fit(disp=0).get_prediction(start=len(history), end=len(history) + HORIZON - 1)
    interval = made.pred_int(alpha=0.2)
    return made.predicted_mean.to_numpy(), interval.to_numpy()


def arima_of(history: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    made = ARIMA(history, order=(1, 0, 1), seasonal_order=(0, 1, 0, SEASON)).fit().get_forecast(HORIZON)
    return made.predicted_mean.to_numpy(), made.conf_int(alpha=0.2).to_numpy()


def theta_of(history: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    fit = ThetaModel(history, period=SEASON).fit()
    return fit.forecast(HORIZON).to_numpy(), fit.prediction_intervals(HORIZON, alpha=0.2).to_numpy()


FITTED = {
    "ets": (ets(season=SEASON, horizon=HORIZON, trend="none"), ets_of),
    "arima": (arima(season=SEASON, horizon=HORIZON), arima_of),
    "theta": (theta(season=SEASON, horizon=HORIZON), theta_of),
}


@pytest.mark.parametrize("name", FITTED)
def test_the_median_and_the_80_percent_interval_are_statsmodels_own(name: str) -> None:
    model, own = FITTED[name]
    x = windows()
    made = model(x)
    assert isinstance(made, Quantiles)
    assert made.levels == LEVELS
    for window, series in ((0, 0), (1, 1)):
        mean, interval = own(pd.Series(x[window, :, series].double().numpy()))
        values = made.values[window, :, series]
        np.testing.assert_allclose(values[:, 4], mean, rtol=1e-5)
        np.testing.assert_allclose(values[:, [0, 8]], interval, rtol=1e-4)


@pytest.mark.parametrize("name", FITTED)
def test_they_are_black_boxes_that_are_fitted_anew_to_a_perturbed_history(name: str) -> None:
    model, _ = FITTED[name]
    x = windows(count=1).requires_grad_()
    made = model(x).values
    assert not made.requires_grad
    assert torch.equal(model(x).values, made)
    early = x.detach().clone()
    early[:, :20, 0] += torch.randn(20, generator=torch.Generator().manual_seed(3))
    other = model(early).values
    assert not torch.allclose(other[:, :, 0], made[:, :, 0])
    assert torch.equal(other[:, :, 1], made[:, :, 1])


def test_the_trend_with_the_smallest_criterion_is_taken() -> None:
    x = windows(count=1, series=1) + 2 * torch.arange(48)[None, :, None]
    chosen, damped, none = (
        ets(season=SEASON, horizon=HORIZON, trend=one)(x).values[0, :, 0, 4] for one in ("auto", "additive", "none")
    )
    assert torch.equal(chosen, damped)
    assert float(none[-1]) < float(chosen[-1]) - 5


def test_the_order_of_arima_is_chosen_by_differences_and_criterion() -> None:
    steps = np.random.default_rng(0).normal(size=200)
    walk = torch.tensor(np.cumsum(steps), dtype=torch.float32).reshape(1, -1, 1)
    chosen = arima(order="auto", season=1, horizon=3)(walk).values[0, :, 0]
    spread = (chosen[:, -1] - chosen[:, 0]) / (2 * norm.ppf(0.9))
    np.testing.assert_allclose(spread, steps.std() * np.sqrt([1, 2, 3]), rtol=0.15)  # a random walk's


def test_a_history_is_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = theta(season=SEASON, horizon=2)
    fits = []
    monkeypatch.setattr(model, "fit", lambda history: (fits.append(history), (np.zeros(2), np.ones(2)))[1])
    for _ in range(3):
        model(windows())
    assert len(fits) == 4


# ---------------------------------------------------------------- a run


def test_score_based_attacks_run_on_a_black_box_and_gradient_attacks_are_refused_in_one_line() -> None:
    result = evaluate(
        "ets(trend='none')",
        "victoria-demand",
        attacks=["nes(queries=15, pairs=2)", "spsa(queries=15, pairs=2)", "simba(queries=15)", "pgd(steps=2)"],
        samples=3,
    )
    records = {record.cell.attack.name: record for record in result.records}
    refused = records.pop("pgd")
    assert refused.status is Status.SKIPPED
    assert refused.reason is not None
    assert refused.reason.startswith("no gradient reaches the input")
    assert "use a score- or decision-based attack" in refused.reason
    assert "\n" not in refused.reason
    for record in records.values():
        assert record.status is Status.OK, record.reason
        assert record.backward_per_sample == 0
        assert (record.outcomes.columns["robust_mase"] >= record.outcomes.columns["clean_mase"]).all()
    assert records["simba"].metrics["robust_mase"].value > records["simba"].metrics["clean_mase"].value


def test_pgd_moves_the_seasonal_naive_forecast_as_far_as_the_history_may_move() -> None:
    result = evaluate(
        "seasonal-naive", "victoria-demand", attacks=["pgd(steps=10)"], objective="up", samples=20, eps=0.1
    )
    (record,) = result.records
    assert record.outcomes is not None
    np.testing.assert_allclose(record.outcomes.columns["shift"], 0.1, rtol=1e-3)
