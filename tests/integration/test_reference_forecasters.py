import json
from dataclasses import asdict
from importlib.resources import files
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import rbl_reference
from rbl_reference import forecasters
from rbl_reference.channelwise import Channelwise
from rbl_reference.train_forecasters import FIRST, RECIPES, describe, error, train
from rbl_reference.victoria_demand import VictoriaDemand, read_hourly
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.errors import SkipCell
from robustbench_lab.tasks.forecast_output import LEVELS, Paths, Quantiles, centre
from robustbench_lab.testing.component_contracts import check_dataset

EPS = rbl_reference.DEMAND_EPS
TRAINED_LONG = ("demand-nbeats", "demand-lstm", "demand-patchtst", "demand-deepar")
BUNDLED = {name: getattr(forecasters, name.replace("-", "_")) for name in RECIPES}


@pytest.fixture(scope="module")
def windows() -> tuple[Tensor, Tensor]:
    data = VictoriaDemand()
    samples = data.load(range(len(data.sample_ids)))
    return samples.inputs, samples.targets["future"]


def error_under_pgd(model: Channelwise, history: Tensor, future: Tensor, steps: int = 20) -> float:
    """Madry et al. 2018 on the absolute error, written again here so that it shares nothing with the recipe's."""
    eps = EPS * float(model.std)
    delta = eps * (torch.rand(history.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    for _ in range(steps):
        leaf = (history + delta).requires_grad_()
        (gradient,) = torch.autograd.grad((centre(model(leaf)) - future).abs().sum(), leaf)
        delta = (leaf.detach() + eps / 8 * gradient.sign() - history).clamp(-eps, eps)
    return error(model, history + delta, future)


def test_the_series_is_three_years_of_hours_of_which_219_days_are_to_test() -> None:
    times, demand = read_hourly()
    assert len(times) == len(demand) == 24 * (366 + 365 + 365)
    assert (demand > 2000).all()
    assert (demand < 10_000).all()
    hours = np.array([time.removesuffix("Z") for time in times], dtype="datetime64[h]")
    assert (np.diff(hours) == np.timedelta64(1, "h")).all()
    data = VictoriaDemand()
    assert check_dataset(data) == []
    assert len(data.sample_ids) == 219
    assert data.bounds.low == 0


@pytest.mark.parametrize("name", BUNDLED)
def test_every_forecaster_beats_the_seasonal_naive_forecast_by_far(name: str, windows: tuple[Tensor, Tensor]) -> None:
    history, future = windows
    model = BUNDLED[name]()
    naive = float((history[:, -24:] - future).abs().mean() / model.std)
    assert error(model, history, future) < 0.65 * naive


def test_noise_costs_little_and_pgd_doubles_the_error_where_training_was_plain(
    windows: tuple[Tensor, Tensor],
) -> None:
    history, future = (one[::5] for one in windows)
    rise = {}
    for name, factory in BUNDLED.items():
        model = factory()
        clean = error(model, history, future)
        signs = torch.randint(0, 2, history.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        noisy = error(model, history + EPS * model.std * signs, future) - clean
        rise[name] = error_under_pgd(model, history, future) / clean
        assert noisy < 0.2 * (rise[name] - 1) * clean
    assert min(rise[name] for name in rise if name not in ("demand-mlp-at", "demand-mlp-noise")) > 1.9
    assert rise["demand-mlp-at"] < 1.5 < rise["demand-mlp-noise"] < rise["demand-mlp"]


@pytest.mark.parametrize(
    "spec", [one for one in rbl_reference.rbl_models() if one.name in BUNDLED], ids=lambda spec: spec.name
)
def test_a_model_spec_names_its_factory_and_files_that_ship(spec: ModelSpec) -> None:
    assert resolve_name(str(spec.factory)) is BUNDLED[spec.name]
    for name in spec.files:
        package, _, path = name.partition(":")
        assert (files(package) / path).is_file()


def recorded(name: str) -> dict[str, Any]:
    with safe_open(files("rbl_reference") / "weights" / f"{name}.safetensors", framework="pt") as weights:
        description: dict[str, Any] = json.loads(weights.metadata()["recipe"])
    return description


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "demand-deepar" else name for name in RECIPES]
)
def test_the_weights_carry_the_recipe_as_it_is_and_errors_measured_again(name: str) -> None:
    recipe = asdict(RECIPES[name])
    found, measured = recorded(name), describe(name, BUNDLED[name]())
    assert {key: found[key] for key in recipe} == recipe
    for key in ("clean_mae", "noise_mae", "robust_mae"):
        assert found[key] == pytest.approx(measured[key], abs=0.002)


# Bit by bit the same on one CPU type and torch build only, so the same behaviour is asked for.
@pytest.mark.parametrize(
    "name",
    ["demand-nlinear", *(pytest.param(name, marks=pytest.mark.slow) for name in ("demand-mlp-at", *TRAINED_LONG))],
)
def test_the_recipe_still_gives_the_model(name: str, windows: tuple[Tensor, Tensor]) -> None:
    (trained, _), bundled = train(name), BUNDLED[name]()
    assert error(trained, *windows) == pytest.approx(error(bundled, *windows), abs=0.005)
    assert error_under_pgd(trained, *windows) == pytest.approx(error_under_pgd(bundled, *windows), abs=0.02)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_still_begins_as_recorded(name: str) -> None:
    _, losses = train(name, batches=FIRST)
    assert losses == pytest.approx(recorded(name)["first_losses"], rel=0.02)


def test_weights_are_below_a_megabyte() -> None:
    weights = [path for path in (files("rbl_reference") / "weights").iterdir() if path.name.startswith("demand-")]
    assert len(weights) == len(RECIPES)
    assert all(len(path.read_bytes()) < 1_000_000 for path in weights)


def test_a_run_that_names_no_model_leaves_out_the_slow_one_only() -> None:
    specs = [one for one in rbl_reference.rbl_models() if one.name in BUNDLED]
    assert [one.name for one in specs if one.reference_dataset is None] == ["demand-deepar"]


def test_inputs_with_other_channels_are_refused_in_one_line(windows: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(SkipCell, match="the model forecasts 1 series; inputs have 3 channels"):
        BUNDLED["demand-mlp"]()(windows[0].expand(-1, -1, 3))


# ---------------------------------------------------------------- those that forecast distributions


def test_the_transformers_quantiles_rise_and_cover_what_comes_about_as_often_as_they_say(
    windows: tuple[Tensor, Tensor],
) -> None:
    history, future = windows
    with torch.no_grad():
        forecast = BUNDLED["demand-patchtst"]()(history)
    assert isinstance(forecast, Quantiles)
    assert forecast.levels == LEVELS
    assert (forecast.values.diff(dim=3) >= 0).all()
    below = (future[..., None] <= forecast.values).float().mean((0, 1, 2))
    assert below.tolist() == pytest.approx(LEVELS, abs=0.15)


def test_paths_are_the_same_for_the_same_history_whatever_else_is_in_the_batch(windows: tuple[Tensor, Tensor]) -> None:
    history, _ = windows
    model = BUNDLED["demand-deepar"](paths=6)
    with torch.no_grad():
        whole, again, part = model(history[:5]), model(history[:5]), model(history[3:4])
    assert isinstance(whole, Paths)
    assert whole.values.shape == (5, 24, 1, 6)
    assert torch.equal(whole.values, again.values)
    assert torch.allclose(part.values[0], whole.values[3], rtol=1e-5)


def test_log_probabilities_are_those_of_the_paths_with_the_paths_held_fixed(windows: tuple[Tensor, Tensor]) -> None:
    history = windows[0][:3].clone().requires_grad_()
    model = BUNDLED["demand-deepar"](paths=4).requires_grad_(False)
    forecast = model(history)

    def log_probability(of: Tensor) -> Tensor:
        """Step by step from the model's own definition, in the data's units; `[N, S]`."""
        standard = [(one.squeeze(2) - model.mean) / model.std for one in (of, forecast.values.detach()[..., 0, :])]
        series = torch.cat([standard[0][:, :, None].expand(-1, -1, 4), standard[1]], 1)
        whole = torch.stack([model.net.log_density(one)[:, -24:].sum(1) for one in series.unbind(2)], 1)
        return whole - 24 * model.std.log()

    assert forecast.log_probability is not None
    assert torch.allclose(forecast.log_probability, log_probability(history), rtol=1e-4, atol=1e-3)
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0])
    (found,) = torch.autograd.grad((forecast.log_probability * weight).sum(), history)
    (expected,) = torch.autograd.grad((log_probability(history) * weight).sum(), history)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_many_paths_have_the_distribution_that_the_network_says() -> None:
    history = VictoriaDemand().load([7]).inputs.requires_grad_()
    model = BUNDLED["demand-deepar"](paths=2000).requires_grad_(False)
    forecast = model(history)
    assert forecast.log_probability is not None
    first = forecast.values.detach()[0, 0, 0]
    with torch.no_grad():
        net, standard = model.net, model.standardised(history)
        state, _ = net._encode(standard)
        mean, std = net._distribution(state[0])
    assert float(first.mean()) == pytest.approx(float(mean * model.std + model.mean), abs=0.1 * float(first.std()))
    assert float(first.std()) == pytest.approx(float(std * model.std), rel=0.1)
