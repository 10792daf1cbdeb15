"""Defenses of forecasters against what they are defined as, and the guarantee of smoothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import medfilt
from torch import Tensor, nn

from rbl_defenses.series.clip_outliers import clip_outliers
from rbl_defenses.series.kalman import kalman
from rbl_defenses.series.median_filter import median_filter
from rbl_defenses.series.moving_average import moving_average
from rbl_defenses.series.smoothing import certified_interval, smoothing
from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.errors import UsageError
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.testing.component_contracts import check_forecaster_defense
from robustbench_lab.testing.known_forecasters import HISTORY, GaussianForecaster, LinearForecaster

FILTERS: list[Any] = [median_filter, moving_average, kalman, clip_outliers]


class Whole(nn.Module):
    """Forecasts the first two channels of its input by themselves, so that a test sees what reaches a model."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :2]


def histories(seed: int, channels: int = 2, steps: int = 9) -> Tensor:
    return torch.randn(3, steps, channels, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), window=st.sampled_from([3, 5, 7]))
@settings(max_examples=20, deadline=None)
def test_filters_are_those_of_scipy_and_numpy(seed: int, window: int) -> None:
    x, half = histories(seed), window // 2
    padded = np.pad(x.numpy(), [(0, 0), (half, half), (0, 0)], mode="edge")
    inner = slice(half, half + x.shape[1])
    median = np.stack([[medfilt(one, window)[inner] for one in sample.T] for sample in padded]).swapaxes(1, 2)
    assert np.allclose(median_filter(Whole(), window=window)(x).numpy(), median)
    mean = np.stack([[np.convolve(one, np.ones(window) / window, "valid") for one in sample.T] for sample in padded])
    assert np.allclose(moving_average(Whole(), window=window)(x).numpy(), mean.swapaxes(1, 2), atol=1e-6)


@pytest.mark.parametrize("signal", [0.05, 1.0, 20.0])
def test_the_kalman_smoother_is_that_of_filtering_forwards_and_smoothing_backwards(signal: float) -> None:
    x = histories(1)[0, :, 0].double().numpy()
    level, variance = np.empty(len(x)), np.empty(len(x))
    before, spread = 0.0, 1e9  # next to nothing is known of the first level
    for step, value in enumerate(x):
        gain = spread / (spread + 1)
        level[step], variance[step] = before + gain * (value - before), spread * (1 - gain)
        before, spread = level[step], variance[step] + signal
    for step in range(len(x) - 2, -1, -1):  # Rauch, Tung & Striebel 1965
        gain = variance[step] / (variance[step] + signal)
        level[step] += gain * (level[step + 1] - level[step])
    assert np.allclose(kalman(Whole(), signal=signal)(histories(1))[0, :, 0].numpy(), level, atol=1e-5)


def test_outliers_are_cut_off_at_their_neighbours_and_nothing_else_changes() -> None:
    x = torch.linspace(0, 1, 40)[None, :, None].repeat(2, 1, 2)
    spiked = x.clone()
    spiked[0, 17, 1] += 50
    defended = clip_outliers(Whole(), window=13, deviations=3.0)
    assert torch.allclose(defended(x)[:, 6:-6], x[:, 6:-6])
    about = spiked[0, 11:24, 1]
    reach = 3 * 1.4826 * (about - about.median()).abs().median()
    assert torch.isclose(defended(spiked)[0, 17, 1], about.median() + reach)


@pytest.mark.parametrize("make", FILTERS)
def test_a_constant_history_passes_unchanged_and_units_do_not_matter(make: Any) -> None:
    x = histories(2, steps=20)
    assert torch.allclose(make(Whole())(torch.full_like(x, 7.0)), torch.tensor(7.0), rtol=1e-5)
    assert torch.allclose(make(Whole())(100 * x + 5), 100 * make(Whole())(x) + 5, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [*FILTERS, lambda model, **params: smoothing(model, sigma=1.0, samples=4, **params)])
def test_covariates_and_what_is_known_of_the_future_stay_as_they_are(make: Any) -> None:
    seen = []

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x[:, :3, :1]

    x = histories(3, channels=4, steps=20)
    make(Model(), channels=[0, 1], ahead=5)(x)
    for shown in seen[0].split(len(x)):
        assert torch.equal(shown[:, :, 2:], x[:, :, 2:])
        assert torch.equal(shown[:, 15:], x[:, 15:])
        assert (shown[:, :15, :2] != x[:, :15, :2]).float().mean() > 0.1
    with pytest.raises(UsageError, match=r"4 channels, the model forecasts 1: give channels="):
        make(Model())(x)
    with pytest.raises(UsageError, match=r"channels=\[4\]: the data have 4 channels"):
        make(Model(), channels=[4])(x)


def test_all_are_in_the_catalog_as_differentiable_as_they_say() -> None:
    catalog = open_catalog([])
    names = {"median-filter": {}, "moving-average": {}, "kalman": {}, "clip-outliers": {}, "smoothing": {"sigma": 0.5}}
    for name, params in names.items():
        spec = catalog.find("defenses", name, "forecasting").spec
        made = catalog.resolve("defenses", Component(name, params), task="forecasting")
        for model in (LinearForecaster(), GaussianForecaster(), GaussianForecaster(paths=5)):
            defended = catalog.build("defenses", made, model, task="forecasting")
            assert check_forecaster_defense(defended, spec.gradient, randomized=spec.randomized) == []
    with pytest.raises(UsageError, match="odd number of steps"):
        catalog.resolve("defenses", Component("median-filter", {"window": 4}), task="forecasting")


def test_smoothing_is_the_median_of_the_forecasts_of_noise_in_each_channels_own_size() -> None:
    sigma = [0.5, 40.0]
    x = 10 + histories(4, steps=HISTORY)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        defended = smoothing(LinearForecaster(), sigma=sigma, samples=3000)
        forecasts = defended.forecasts(x, 4000)
        median = defended(x)
    clean, weight = LinearForecaster()(x), LinearForecaster().weight
    spread = weight.norm(dim=1)[:, None] * torch.tensor(sigma)
    assert torch.allclose(forecasts.std(0), spread.expand(3, -1, -1), rtol=0.06)
    assert ((median - clean).abs() < 5 * spread * 1.25 / math.sqrt(3000)).all()


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.5])
def test_the_certified_interval_of_a_linear_forecaster_is_what_an_adversary_can_reach(radius: float) -> None:
    """Noisy forecasts are normal, so their quantiles are the clean forecast with eps times the l2 norm of the weights.

    That is how far a change of length eps moves a linear forecast: the bound is tight.
    """
    sigma, x = 2.0, histories(5, steps=HISTORY)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        forecasts = smoothing(LinearForecaster(), sigma=sigma).forecasts(x, 20_000)
    low, high = certified_interval(forecasts, radius)
    clean, reach = LinearForecaster()(x), radius * sigma * LinearForecaster().weight.norm(dim=1)[:, None]
    # On the safe side, and not by much.
    assert (low <= clean - reach).all()
    assert (high >= clean + reach).all()
    assert (high - low <= 2 * reach + 0.3 * sigma * LinearForecaster().weight.norm(dim=1)[:, None]).all()


def test_no_change_within_the_budget_moves_the_median_of_a_crooked_model_out_of_its_interval() -> None:
    class Crooked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(2 * x.sum((1, 2), keepdim=True)) + x[:, -1:, :1].relu()

    x, sigma, radius = histories(6, channels=1, steps=4), 0.5, 0.6
    with torch.random.fork_rng():
        torch.manual_seed(2)
        smoothed = smoothing(Crooked(), sigma=sigma)
        low, high = certified_interval(smoothed.forecasts(x, 4000), radius)
        for _ in range(100):
            change = torch.randn(x.shape)
            change *= radius * sigma / change.flatten(1).norm(dim=1)[:, None, None]
            median = smoothed.forecasts(x + change, 1000).median(0).values
            assert (median >= low).all()
            assert (median <= high).all()


def test_too_few_samples_certify_nothing() -> None:
    low, high = certified_interval(torch.randn(20, 3, 4, 1), 1.5)
    assert (low == -math.inf).all()
    assert (high == math.inf).all()


def test_the_bound_holds_with_the_confidence_it_says() -> None:
    """Of draws whose quantiles are known, the share of intervals that miss one of them."""
    draws = torch.randn(200, 5000, 1, 1, generator=torch.Generator().manual_seed(3))
    low, high = certified_interval(draws, 1.0, confidence=0.95)
    missed = float(((low > -1) | (high < 1)).float().mean())
    assert 0.02 < missed < 0.065
