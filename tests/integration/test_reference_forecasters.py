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
from rbl_reference.forecasters import Forecaster, demand_dlinear, demand_mlp, demand_mlp_at, demand_nlinear
from rbl_reference.train_forecasters import RECIPES, describe, error, train
from rbl_reference.victoria_demand import VictoriaDemand, read_hourly
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.testing.component_contracts import check_dataset

EPS = rbl_reference.DEMAND_EPS
BUNDLED = {
    "demand-dlinear": demand_dlinear,
    "demand-nlinear": demand_nlinear,
    "demand-mlp": demand_mlp,
    "demand-mlp-at": demand_mlp_at,
}


@pytest.fixture(scope="module")
def windows() -> tuple[Tensor, Tensor]:
    data = VictoriaDemand()
    samples = data.load(range(len(data.sample_ids)))
    return samples.inputs, samples.targets["future"]


def error_under_pgd(model: Forecaster, history: Tensor, future: Tensor, steps: int = 20) -> float:
    """Madry et al. 2018 on the absolute error, written again here so that it shares nothing with the recipe's."""
    eps = EPS * float(model.std)
    delta = eps * (torch.rand(history.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    for _ in range(steps):
        leaf = (history + delta).requires_grad_()
        (gradient,) = torch.autograd.grad((model(leaf) - future).abs().sum(), leaf)
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


def test_noise_costs_little_and_pgd_doubles_the_error_but_for_the_adversarially_trained_model(
    windows: tuple[Tensor, Tensor],
) -> None:
    history, future = windows
    rise = {}
    for name, factory in BUNDLED.items():
        model = factory()
        clean = error(model, history, future)
        signs = torch.randint(0, 2, history.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        noisy = error(model, history + EPS * model.std * signs, future) - clean
        rise[name] = error_under_pgd(model, history, future) / clean
        assert noisy < 0.2 * (rise[name] - 1) * clean
    assert min(rise[name] for name in rise if name != "demand-mlp-at") > 1.9
    assert rise["demand-mlp-at"] < 1.5


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


@pytest.mark.parametrize("name", RECIPES)
def test_the_weights_carry_the_recipe_as_it_is_and_errors_measured_again(name: str) -> None:
    recipe = asdict(RECIPES[name])
    found, measured = recorded(name), describe(name, BUNDLED[name]())
    assert {key: found[key] for key in recipe} == recipe
    for key in ("clean_mae", "noise_mae", "robust_mae"):
        assert found[key] == pytest.approx(measured[key], abs=0.002)


# Bit by bit the same on one CPU type and torch build only, so the same behaviour is asked for.
@pytest.mark.parametrize("name", ["demand-nlinear", pytest.param("demand-mlp-at", marks=pytest.mark.slow)])
def test_the_recipe_still_gives_the_model(name: str, windows: tuple[Tensor, Tensor]) -> None:
    trained, bundled = train(name), BUNDLED[name]()
    assert error(trained, *windows) == pytest.approx(error(bundled, *windows), abs=0.005)
    assert error_under_pgd(trained, *windows) == pytest.approx(error_under_pgd(bundled, *windows), abs=0.02)
