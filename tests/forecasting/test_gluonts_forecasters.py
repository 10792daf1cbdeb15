"""Predictors of GluonTS: `gluonts:<folder>`, against the library's own `predict`."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("gluonts", reason="needs gluonts: pip install --no-deps -r tests/no-deps.txt")
pytest.importorskip("lightning", reason="needs lightning: pip install --no-deps -r tests/no-deps.txt")

import pandas as pd
from gluonts.core import serde
from gluonts.time_feature import day_of_week, hour_of_day
from gluonts.torch import (
    DeepAREstimator,
    DLinearEstimator,
    LagTSTEstimator,
    PatchTSTEstimator,
    SimpleFeedForwardEstimator,
    TemporalFusionTransformerEstimator,
    TiDEEstimator,
    WaveNetEstimator,
)
from gluonts.torch.distributions import (
    GammaOutput,
    LaplaceOutput,
    NegativeBinomialOutput,
    NormalOutput,
    PoissonOutput,
    QuantileOutput,
    StudentTOutput,
)
from gluonts.torch.model.i_transformer import ITransformerEstimator
from gluonts.torch.model.predictor import PyTorchPredictor

from rbl_gluonts.gluonts_forecaster import gluonts_forecaster
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.forecast_output import Paths, Quantiles

HISTORY, HORIZON, START = 30, 4, "2020-01-01"
LEVELS = [0.1, 0.5, 0.9]
SHAPE = {"prediction_length": HORIZON, "context_length": 12, "num_batches_per_epoch": 3, "batch_size": 8}
HEADS = {"d_model": 8, "nhead": 2, "dim_feedforward": 8, "num_encoder_layers": 1}
FEW_LAGS = {"lags_seq": [1, 2, 12], "hidden_size": 6}


def estimators() -> dict[str, Callable[[dict[str, Any]], Any]]:
    return {
        "deepar": lambda own: DeepAREstimator(freq="h", **FEW_LAGS, time_features=[], **own),
        "deepar-normal": lambda own: DeepAREstimator(
            freq="h", **FEW_LAGS, time_features=[], distr_output=NormalOutput(), **own
        ),
        "deepar-counts": lambda own: DeepAREstimator(
            freq="h", **FEW_LAGS, time_features=[], distr_output=NegativeBinomialOutput(), **own
        ),
        "deepar-features": lambda own: DeepAREstimator(
            freq="h",
            **FEW_LAGS,
            time_features=[hour_of_day, day_of_week],
            num_feat_dynamic_real=1,
            num_feat_static_real=1,
            num_feat_static_cat=1,
            cardinality=[3],
            **own,
        ),
        "dlinear": lambda own: DLinearEstimator(hidden_dimension=3, **own),
        "feedforward": lambda own: SimpleFeedForwardEstimator(
            hidden_dimensions=[6], distr_output=QuantileOutput(LEVELS), **own
        ),
        "feedforward-counts": lambda own: SimpleFeedForwardEstimator(
            hidden_dimensions=[6], distr_output=PoissonOutput(), **own
        ),
        "feedforward-gamma": lambda own: SimpleFeedForwardEstimator(
            hidden_dimensions=[6], distr_output=GammaOutput(), **own
        ),
        "patchtst": lambda own: PatchTSTEstimator(
            patch_len=4, **HEADS, scaling="std", distr_output=LaplaceOutput(), **own
        ),
        "lagtst": lambda own: LagTSTEstimator(freq="h", lags_seq=[1, 2], **HEADS, distr_output=StudentTOutput(), **own),
        "tide": lambda own: TiDEEstimator(freq="h", **own),
        "tft": lambda own: TemporalFusionTransformerEstimator(
            freq="h", time_features=[], hidden_dim=4, variable_dim=4, num_heads=2, **own
        ),
        "tft-features": lambda own: TemporalFusionTransformerEstimator(
            freq="h",
            time_features=[hour_of_day],
            dynamic_dims=[1],
            past_dynamic_dims=[1],
            hidden_dim=4,
            variable_dim=4,
            num_heads=2,
            **own,
        ),
        "itransformer": lambda own: ITransformerEstimator(**HEADS, **own),
        "wavenet": lambda own: WaveNetEstimator(
            freq="h",
            num_bins=8,
            time_features=[],
            **{name: one for name, one in own.items() if name != "context_length"},
        ),
    }


def windows(channels: int = 1, count: int = 2, steps: int = HISTORY) -> Tensor:
    """Counts, so that every distribution has them in its support."""
    generator = torch.Generator().manual_seed(0)
    level = 20 + 10 * torch.sin(torch.arange(steps) / 4)[None, :, None]
    return torch.poisson(level.expand(count, -1, channels), generator)


def entries(values: Tensor) -> list[dict[str, Any]]:
    """Of each series of each window, as the library takes it."""
    start = pd.Period(START, freq="h")
    return [{"start": start, "target": one} for one in values.transpose(1, 2).flatten(0, 1).numpy()]


def covariates(steps: int = HISTORY + HORIZON) -> dict[str, Any]:
    times = pd.period_range(START, periods=steps, freq="h")
    random = np.random.default_rng(0)
    return {
        "hour": hour_of_day(times),
        "weekday": day_of_week(times),
        "own": random.normal(size=steps).astype(np.float32),
        "past": random.normal(size=steps).astype(np.float32),
    }


def training_data(name: str) -> list[dict[str, Any]]:
    values = windows(2, 3, 80)
    start = pd.Period(START, freq="h")
    if name == "itransformer":
        return [{"start": start, "target": one.T.numpy()} for one in values]
    own = covariates(80)
    extra = {"feat_dynamic_real": own["own"][None], "past_feat_dynamic_real": own["past"][None]}
    return [
        {**one, **extra, "feat_static_real": [0.5], "feat_static_cat": [2]} if "features" in name else one
        for one in entries(values)
    ]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, PyTorchPredictor]]:
    """The folder of a small network that was trained for a few steps, and the library's predictor."""
    root = tmp_path_factory.mktemp("gluonts")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "default_root_dir": str(root / "trainer")}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False}
    made: dict[str, tuple[str, PyTorchPredictor]] = {}

    def folder_of(name: str) -> tuple[str, PyTorchPredictor]:
        if name not in made:
            torch.manual_seed(0)
            predictor = estimators()[name]({**SHAPE, "trainer_kwargs": trainer}).train(training_data(name))
            folder = root / name
            folder.mkdir()
            predictor.serialize(folder)
            made[name] = (str(folder), predictor)
        return made[name]

    return folder_of


Saved = Callable[[str], tuple[str, PyTorchPredictor]]


@pytest.mark.parametrize("name", ["feedforward", "tft"])
def test_quantiles_are_the_librarys_own(name: str, saved: Saved) -> None:
    folder, own = saved(name)
    x = windows(2)
    made = gluonts_forecaster(folder)(x)
    assert isinstance(made, Quantiles)
    for forecast, values in zip(own.predict(entries(x)), made.values.transpose(1, 2).flatten(0, 1), strict=True):
        for place, level in enumerate(made.levels):
            np.testing.assert_allclose(values[:, place].detach(), forecast.quantile(level), rtol=1e-4)


@pytest.mark.parametrize("name", ["dlinear", "feedforward-counts", "patchtst", "lagtst"])
def test_paths_are_of_the_librarys_distributions(name: str, saved: Saved) -> None:
    folder, own = saved(name)
    x = windows(2)
    made = gluonts_forecaster(folder, paths=2000)(x)
    assert isinstance(made, Paths)
    values = made.values.transpose(1, 2).flatten(0, 1)
    density = 0
    for forecast, paths in zip(own.predict(entries(x)), values, strict=True):
        mean, std = forecast.distribution.mean[:, None], forecast.distribution.stddev[:, None]
        standard = ((paths - mean) / std).clamp(-10, 10)
        assert standard.mean(1).abs().max() < 4 / 2000**0.5
        np.testing.assert_allclose(standard.std(1).detach(), 1, atol=0.25)
        density = density + torch.stack([forecast.distribution.log_prob(one).sum() for one in paths.detach().T])
    assert made.log_probability is not None
    np.testing.assert_allclose(made.log_probability.sum(0).detach(), density, rtol=1e-4)


@pytest.mark.parametrize("name", ["deepar", "deepar-normal", "deepar-counts", "itransformer"])
def test_paths_drawn_step_by_step_are_spread_as_the_librarys(name: str, saved: Saved) -> None:
    folder, own = saved(name)
    x = windows(2, 1)
    made = gluonts_forecaster(folder, paths=3000)(x)
    assert isinstance(made, Paths)
    torch.manual_seed(1)
    given = entries(x) if name != "itransformer" else [{**entries(x)[0], "target": x[0].T.numpy()}]
    forecasts = [torch.from_numpy(one.samples) for one in own.predict(given, num_samples=3000)]  # [S, H] or [S, H, C]
    wanted = torch.stack(forecasts, 2) if name != "itransformer" else forecasts[0]
    paths = made.values[0].movedim(2, 0).detach()  # [S, H, C]
    tolerance = 5 * wanted.std(0) * (2 / 3000) ** 0.5
    assert ((paths.mean(0) - wanted.mean(0)).abs() < tolerance).all()
    for level in (0.1, 0.5, 0.9):
        below = (paths <= wanted.quantile(level, dim=0)).float().mean(0)
        strictly = (paths < wanted.quantile(level, dim=0)).float().mean(0)
        assert (below > level - 0.05).all()
        assert (strictly < level + 0.05).all()


def test_wavenets_paths_are_the_librarys_own_and_without_gradient(saved: Saved) -> None:
    folder, own = saved("wavenet")
    x = windows(1)
    model = gluonts_forecaster(folder)
    made = model(x.requires_grad_())
    assert not made.values.requires_grad
    for row, entry in enumerate(entries(x.detach())):
        torch.manual_seed(0)
        (forecast,) = own.predict([entry])
        np.testing.assert_allclose(made.values[row, :, 0].T, forecast.samples, rtol=1e-5)
    torch.testing.assert_close(model(x[1:]).values, made.values[1:])


@pytest.mark.parametrize("name", ["deepar", "deepar-normal", "dlinear", "feedforward", "patchtst", "lagtst", "tft"])
def test_gradients_are_slopes_and_no_window_depends_on_another(name: str, saved: Saved) -> None:
    model = gluonts_forecaster(saved(name)[0], **({} if name in ("feedforward", "tft") else {"paths": 5})).double()
    x = windows(2).double().requires_grad_()
    made = model(x)
    torch.testing.assert_close(model(x[1:]).values, made.values[1:])
    (gradient,) = torch.autograd.grad(made.values.sum(), x)
    assert gradient.any()
    direction, step = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double(), 1e-5
    with torch.no_grad():
        slope = (model(x + step * direction).values - model(x - step * direction).values).sum() / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["deepar", "deepar-counts"])
def test_log_probabilities_are_the_librarys_along_fixed_paths(name: str, saved: Saved) -> None:
    folder, own = saved(name)
    model = gluonts_forecaster(folder, paths=3, score=True)
    x = windows(1).requires_grad_()
    made = model(x)
    given = model.inputs(x)
    with torch.no_grad():
        for path in range(3):
            loss = own.prediction_net.model.loss(
                **given,
                future_target=made.values[:, :, 0, path],
                future_observed_values=torch.ones(2, HORIZON),
                future_only=True,
                aggregate_by=torch.sum,
            )
            torch.testing.assert_close(made.log_probability[:, path], -loss, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(made.mean_by_score().sum(), x)
    assert gradient.any()
    assert model(x.detach()).values.shape == (2, HORIZON, 1, 3)


def test_features_categories_and_observations_are_channels(saved: Saved) -> None:
    folder, own = saved("deepar-features")
    x, more = windows(1, 1), covariates()
    gap = x.clone()
    gap[0, 20:23] = float("nan")
    (entry,) = entries(gap)
    entry |= {"feat_dynamic_real": more["own"][None], "feat_static_real": [0.7], "feat_static_cat": [1]}
    columns = [torch.as_tensor(more[name]).float() for name in ("hour", "weekday", "own")]
    fixed = [torch.full((HISTORY + HORIZON,), value) for value in (0.7, 1.0)]
    seen = torch.ones(HISTORY + HORIZON)
    seen[20:23] = 0
    series = torch.cat([x[0, :, 0], torch.zeros(HORIZON)])
    window = torch.stack([series, *columns, *fixed, seen], 1)[None]
    roles = {"known": [1, 2, 3], "static": [4], "categories": [5], "observed": [6]}
    model = gluonts_forecaster(folder, **roles, paths=3000)
    given = model.inputs(window)
    (wanted,) = own.input_transform([entry], is_train=False)
    for name, one in given.items():
        np.testing.assert_allclose(one[0], wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert model(window).values.shape == (1, HORIZON, 1, 3000)


def test_the_fusion_transformer_takes_features_of_the_past_and_of_the_future(saved: Saved) -> None:
    folder, own = saved("tft-features")
    x, more = windows(1, 1), covariates()
    (entry,) = entries(x)
    entry |= {"feat_dynamic_real": more["own"][None], "past_feat_dynamic_real": more["past"][None, :HISTORY]}
    series = torch.cat([x[0, :, 0], torch.zeros(HORIZON)])
    window = torch.stack([series, *(torch.as_tensor(more[name]).float() for name in ("hour", "own", "past"))], 1)[None]
    made = gluonts_forecaster(folder, known=[1, 2], past=[3])(window)
    (forecast,) = own.predict([entry])
    for place, level in enumerate(made.levels):
        np.testing.assert_allclose(made.values[0, :, 0, place].detach(), forecast.quantile(level), rtol=1e-4)


def test_what_cannot_be_given_is_one_line(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, params, problem in (
        ("tide", {}, r"needs known=\[...\], .* 7 features of each step \(minute_of_hour, hour_of_day,"),
        ("deepar-features", {}, r"its 3 features of each step \(hour_of_day, day_of_week, 1 of your own\)"),
        ("deepar-features", {"known": [1, 2, 3]}, r"static=\[...\], the channels of its 1 static numbers"),
        ("tft-features", {"known": [1, 2]}, r"past=\[...\], the channels of its 1 features of the past"),
        ("dlinear", {"known": [1]}, "leave known out"),
        ("dlinear", {"horizon": 5}, "horizon=5: it forecasts 4 steps"),
        ("feedforward-gamma", {}, "needs a '.*GammaOutput', which is not made from a file; its output may be Laplace"),
        (str(tmp_path / "empty"), {}, "the folder has no predictor.json, prediction-net-state.pt; predictor.serialize"),
        (str(tmp_path / "none"), {}, "there is no folder"),
    ):
        with pytest.raises(UsageError, match=problem) as caught:
            gluonts_forecaster(saved(name)[0] if name in estimators() else name, **params)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="takes histories of 12 steps, the data give 10"):
        gluonts_forecaster(saved("dlinear")[0])(windows()[:, :10])
    roles = {"known": [1, 2, 3], "static": [4], "categories": [5]}
    with pytest.raises(UsageError, match="channel 5 is to hold categories, 0 to 2: it has other values"):
        gluonts_forecaster(saved("deepar-features")[0], **roles)(torch.full((1, HISTORY + HORIZON, 6), 7.0))


def hostile(module: str) -> dict[str, Any]:
    """What makes GluonTS's own reader import a module, and so run it."""
    return {"__kind__": "type", "class": f"{module}.anything"}


@pytest.mark.parametrize("place", ["network", "output", "parameter", "transformation", "imputation", "weights"])
def test_a_hostile_folder_executes_nothing(
    place: str, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, trace = Path(shutil.copytree(saved("dlinear")[0], tmp_path / "hostile")), tmp_path / "trace"
    monkeypatch.syspath_prepend(tmp_path)
    for name in (f"hostile_{place}", f"control_{place}"):
        (tmp_path / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').close()")
    bad, file = hostile(f"hostile_{place}"), folder / "predictor.json"
    given = json.loads(file.read_text())
    net, steps = given["kwargs"]["prediction_net"], given["kwargs"]["input_transform"]["kwargs"]["transformations"]
    if place == "network":
        net["class"] = bad["class"]
    elif place == "output":
        net["kwargs"]["model_kwargs"]["distr_output"] = bad
    elif place == "parameter":
        net["kwargs"]["model_kwargs"]["kernel_size"] = [bad]
    elif place == "transformation":
        steps.insert(0, {**bad, "kwargs": {}})
    elif place == "imputation":
        given["kwargs"]["forecast_generator"] = bad
        steps[1]["kwargs"]["imputation_method"] = {**bad, "kwargs": {}}
    else:
        (folder / "prediction-net-state.pt").write_bytes(pickle.dumps(_Call(str(trace))))
    file.write_text(json.dumps(given))
    if place == "transformation":  # read as data, and of no interest
        gluonts_forecaster(str(folder), observed=[1])
    else:
        with pytest.raises(UsageError) as caught:
            gluonts_forecaster(str(folder), observed=[1])
        assert "\n" not in str(caught.value)
    assert not trace.exists()
    with contextlib.suppress(ValueError):
        serde.decode(hostile(f"control_{place}"))
    assert trace.exists()


class _Call:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def test_damaged_folders_are_one_line(saved: Saved, tmp_path: Path) -> None:
    for number, (change, problem) in enumerate(
        (
            (lambda one: one["kwargs"].pop("lead_time"), "predictor.json is not GluonTS's"),
            (lambda one: one["kwargs"].update(lead_time=2), "a lead time"),
            (lambda one: one["kwargs"]["prediction_net"]["kwargs"]["model_kwargs"].update(kernel_size=9), None),
            (
                lambda one: one["kwargs"]["prediction_net"]["kwargs"]["model_kwargs"].update(hidden_dimension=5),
                "does not",
            ),
            (
                lambda one: one["kwargs"]["prediction_net"]["kwargs"]["model_kwargs"].update(more=5),
                "cannot make its net",
            ),
            (lambda one: one["kwargs"].update(input_transform=3), "predictor.json is not GluonTS's"),
        )
    ):
        folder = Path(shutil.copytree(saved("dlinear")[0], tmp_path / str(number)))
        given = json.loads((folder / "predictor.json").read_text())
        change(given)
        (folder / "predictor.json").write_text(json.dumps(given))
        if problem is None:
            assert gluonts_forecaster(str(folder))(windows()).values.shape == (2, HORIZON, 1, 100)
            continue
        with pytest.raises(UsageError, match=problem) as caught:
            gluonts_forecaster(str(folder))
        assert "\n" not in str(caught.value)
