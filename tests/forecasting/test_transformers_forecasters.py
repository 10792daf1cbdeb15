"""Forecasters of transformers: `transformers:<folder>`, against the library's own calls."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from scipy import stats
from torch import Tensor
from torch.distributions import NegativeBinomial, Normal, StudentT

from rbl_transformers.drawn_paths import draw, log_density, uniform
from rbl_transformers.transformers_forecaster import transformers_forecaster
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.forecast_output import Paths, Quantiles

HISTORY, HORIZON = 16, 4
PATCHES = {
    "num_input_channels": 2,
    "context_length": HISTORY,
    "prediction_length": HORIZON,
    "patch_length": 4,
    "patch_stride": 4,
    "d_model": 8,
    "num_parallel_samples": 6,
}
TST = {**PATCHES, "num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 8, "scaling": "std"}
TIMES = {
    "patch_length": 4,
    "context_length": HISTORY,
    "horizon_length": HORIZON,
    "hidden_size": 8,
    "intermediate_size": 8,
    "head_dim": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
SAMPLING = {
    "prediction_length": HORIZON,
    "context_length": 8,
    "lags_sequence": [1, 2, 3],
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_parallel_samples": 3,
}
MULTIVARIATE = {**SAMPLING, "input_size": 2, "num_time_features": 1, "distribution_output": "normal"}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "patchtst": ("PatchTST", TST),
    "patchtst student": ("PatchTST", {**TST, "loss": "nll"}),
    "patchtst counts": ("PatchTST", {**TST, "loss": "nll", "distribution_output": "negative_binomial"}),
    "mixer": ("PatchTSMixer", {**PATCHES, "num_layers": 1}),
    "mixer normal": ("PatchTSMixer", {**PATCHES, "num_layers": 1, "loss": "nll", "distribution_output": "normal"}),
    "timesfm": ("TimesFm", TIMES),
    "timesfm 2.5": ("TimesFm2_5", {**TIMES, "num_key_value_heads": 2, "output_quantile_len": HORIZON}),
    "transformer": ("TimeSeriesTransformer", SAMPLING),
    "transformer with features": ("TimeSeriesTransformer", MULTIVARIATE),
    "informer": ("Informer", {**SAMPLING, "encoder_layers": 2}),
    "autoformer": ("Autoformer", {**SAMPLING, "num_time_features": 1, "label_length": 4, "moving_average": 3}),
}
KNOWN = {"transformer with features": [2], "autoformer": [2]}
STEP_BY_STEP = ["transformer", "transformer with features", "informer", "autoformer"]
Folders = Callable[[str], str]


def windows(family: str, count: int = 3) -> Tensor:
    """Two series, and a feature of each step, known beforehand, where the network asks for one."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, HISTORY + HORIZON, 3) if family in KNOWN else (count, HISTORY, 2)
    return 10 + torch.randn(shape, generator=generator)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The folder of a tiny random forecaster, as `save_pretrained` writes it."""
    root = tmp_path_factory.mktemp("forecasters")

    def made(family: str) -> str:
        folder = root / family.replace(" ", "-")
        if not folder.exists():
            kind, config = FAMILIES[family]
            name = f"{kind}ModelForPrediction" if kind.startswith("TimesFm") else f"{kind}ForPrediction"
            torch.manual_seed(0)
            net = getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**config))
            with torch.no_grad():  # initial weights make all forecasts alike
                for weight in net.parameters():
                    weight += 0.2 * torch.randn(weight.shape)
            net.save_pretrained(folder)
        return str(folder)

    return made


def forecaster(folder_of: Folders, family: str, **params: Any) -> Any:
    return transformers_forecaster(folder_of(family), known=KNOWN.get(family, []), **params)


def values(forecast: Any) -> Tensor:
    made: Tensor = forecast if isinstance(forecast, Tensor) else forecast.values
    return made


# ---------------------------------------------------------------- the library's own forecasts


@pytest.mark.parametrize("family", ["patchtst", "mixer"])
def test_points_are_the_librarys_own(family: str, folder_of: Folders) -> None:
    model, x = forecaster(folder_of, family), windows(family)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.net(past_values=x).prediction_outputs, rtol=0, atol=0)
        longer = torch.cat([x[:, :5] * 3, x], 1)
        assert torch.equal(model(longer), model(x))
        assert torch.equal(forecaster(folder_of, family, horizon=2, series=1)(x), model(x)[:, :2, :1])


def test_a_network_without_covariates_is_given_the_forecast_series_alone(folder_of: Folders) -> None:
    model, x = forecaster(folder_of, "patchtst", series=2), windows("patchtst")
    more = torch.cat([x, 100 + x[:, :, :1]], 2)
    with torch.no_grad():
        assert torch.equal(model(more), model(x))


@pytest.mark.parametrize("family", ["patchtst student", "patchtst counts", "mixer normal"])
def test_paths_come_from_the_librarys_distribution(family: str, folder_of: Folders) -> None:
    """Quantiles of many paths are those of many of its samples, and densities are its own."""
    model, x = forecaster(folder_of, family, paths=4000), windows(family, 1)
    with torch.no_grad():
        made = model(x)
        model.net.num_parallel_samples = model.net.config.num_parallel_samples = 4000
        torch.manual_seed(0)
        own = model.net.generate(x).sequences[0]  # [S, H, C]
        for step in range(HORIZON):
            for one in range(2):
                samples = [paths.flatten() for paths in (made.values[0, step, one], own[:, step, one])]
                assert stats.ks_2samp(*samples).statistic < 0.05
        output = model.net(past_values=x)
        distribution = model.net.distribution_output.distribution(
            output.prediction_outputs, loc=output.loc, scale=output.scale
        )
        density = distribution.log_prob(made.values[0, :, :, 7][None]).sum()
    torch.testing.assert_close(made.log_probability[0, 7], density, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", ["timesfm", "timesfm 2.5"])
def test_quantiles_are_the_librarys_own_of_one_series(family: str, folder_of: Folders) -> None:
    model, x = forecaster(folder_of, family), windows(family)
    with torch.no_grad():
        made = model(x)
        assert isinstance(made, Quantiles)
        assert made.levels == tuple(model.net.config.quantiles)
        for window in range(3):
            own = model.net(past_values=[x[window, :, 1]]).full_predictions
            torch.testing.assert_close(made.values[window, :, 1], own[0, :HORIZON, 1:], rtol=1e-4, atol=1e-4)


def test_timesfm_keeps_forecasts_of_positive_series_positive_each_by_itself(folder_of: Folders) -> None:
    model = forecaster(folder_of, "timesfm 2.5")
    model.net.config.infer_is_positive = True
    x = torch.cat([0.01 * windows("", 1).abs(), -windows("", 1)])
    with torch.no_grad():
        made = model(x).values
        own = model.net(past_values=[x[0, :, 0]]).full_predictions[0, :, 1:]
    torch.testing.assert_close(made[0, :, 0], own, rtol=1e-4, atol=1e-5)
    assert (made[0] >= 0).all()
    assert (made[1] < 0).any()


@pytest.mark.parametrize("family", STEP_BY_STEP)
def test_paths_drawn_step_by_step_have_the_librarys_distribution(family: str, folder_of: Folders) -> None:
    model, x = forecaster(folder_of, family, paths=1500), windows(family, 1)
    history = x[:, :HISTORY]
    size = model.net.config.input_size
    length = model.net.model._past_length
    given = history[:, -length:, :2] if size == 2 else history[:, -length:, 0]
    known = KNOWN.get(family, [])
    torch.manual_seed(0)
    own = model.net.generate(
        past_values=given,
        past_time_features=history[:, -length:, known],
        future_time_features=x[:, HISTORY:, known] if known else torch.zeros(1, HORIZON, 0),
        past_observed_mask=torch.ones_like(given),
    ).sequences[0]
    with torch.no_grad():
        made = model(x).values[0]
    for step in range(HORIZON):
        samples = own[:, step, 0] if size == 2 else own[:, step]
        assert stats.ks_2samp(made[step, 0], samples).statistic < 0.07


# ---------------------------------------------------------------- what attacks rely on


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forecast_is_the_same_every_time_and_in_every_batch(family: str, folder_of: Folders) -> None:
    model, x = forecaster(folder_of, family), windows(family)
    with torch.no_grad():
        together = values(model(x))
        assert torch.equal(values(model(x)), together)
        alone = torch.cat([values(model(one[None])) for one in x])
    assert together.shape[:3] == (3, HORIZON, 2)
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", [one for one in FAMILIES if one != "patchtst counts"])
def test_the_gradient_is_that_of_finite_differences(family: str, folder_of: Folders) -> None:
    model, x = forecaster(folder_of, family), windows(family)
    # Inside, TimesFM and Autoformer compute some parts in float32 whatever they are given.
    exact = "timesfm" not in family and family != "autoformer"
    if exact:
        model, x = model.double(), x.double()
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(values(model(x)).shape, generator=generator).to(x)
    direction = torch.randn(x.shape, generator=generator).to(x)

    def loss(inputs: Tensor) -> Tensor:
        return (values(model(inputs)).double() * weight).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    # Autoformer jumps where another lag becomes one of the best.
    step = 1e-6 if exact else 2e-4 if family == "autoformer" else 3e-3
    with torch.no_grad():
        slope = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).double().sum(), slope, rtol=1e-5 if exact else 0.05, atol=1e-3)


@pytest.mark.parametrize("family", ["patchtst counts", *STEP_BY_STEP])
def test_the_score_is_the_gradient_of_the_density_with_the_paths_held_fixed(
    family: str, folder_of: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = forecaster(folder_of, family, score=True), windows(family, 2)
    leaf = x.clone().requires_grad_()
    made = model(leaf)
    assert isinstance(made, Paths)
    assert made.log_probability is not None
    (gradient,) = torch.autograd.grad(made.log_probability.sum(), leaf)
    if family == "patchtst counts":
        assert gradient.any()
        assert not made.values.requires_grad
        return
    # Noise is taken away from the model: it then walks along the paths that it drew before, whatever the history.
    drawn = torch.unflatten(made.values.detach(), 2, (-1, model.net.config.input_size))  # [N, H, groups, size, S]
    fixed = drawn.permute(0, 2, 4, 1, 3).flatten(0, 2)
    walk = model._walk
    monkeypatch.setattr(model, "_walk", lambda given, _paths: (fixed, walk(given, fixed)[1]))
    direction, step = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)), 1e-2

    def density(inputs: Tensor) -> Tensor:
        found: Tensor = model(inputs).log_probability
        return found.sum()

    slope = (density(x + step * direction) - density(x - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kind", [Normal, StudentT, NegativeBinomial])
def test_draws_have_the_distribution_that_scipy_knows(kind: Any) -> None:
    numbers = uniform(20_000, 1, 1)[:, :, 0, 0]
    loc, scale = torch.tensor(3.0), torch.tensor(2.0)
    if kind is NegativeBinomial:
        parameters = (torch.tensor(4.0), torch.tensor(0.5))
        probability = 1 / (1 + np.exp(0.5) * 2)
        own: Any = stats.nbinom(4, probability)
    else:
        parameters = (torch.tensor(4.5), torch.tensor(0.5), torch.tensor(1.5))[-2 if kind is Normal else -3 :]
        own = stats.norm(4, 3) if kind is Normal else stats.t(4.5, 4, 3)
    drawn = draw(kind, parameters, loc, scale, numbers)
    wanted = own.ppf(np.linspace(0.05, 0.95, 19))
    np.testing.assert_allclose(
        np.quantile(drawn, np.linspace(0.05, 0.95, 19)), wanted, atol=1 if kind is NegativeBinomial else 0.15
    )
    at = torch.tensor([0.0, 3.0, 7.0])
    density = own.logpmf(at) if kind is NegativeBinomial else own.logpdf(at)
    np.testing.assert_allclose(log_density(kind, parameters, loc, scale, at), density, rtol=1e-4)


def test_log_probabilities_are_left_out_where_nobody_asks_for_them(folder_of: Folders) -> None:
    x = windows("transformer").requires_grad_()
    assert forecaster(folder_of, "transformer")(x).log_probability is None
    with torch.no_grad():
        assert forecaster(folder_of, "transformer", score=True)(x).log_probability is None


# ---------------------------------------------------------------- what cannot be loaded, or does not fit


@pytest.mark.parametrize(
    ("family", "params", "problem"),
    [
        ("patchtst", {"horizon": 5}, "horizon=5: it forecasts 4 steps"),
        ("patchtst", {"revision": "main"}, "a folder has no revisions"),
        ("transformer with features", {"known": []}, r"needs 1 features of each step: name their channels with known="),
        ("transformer", {"known": [1]}, "takes no features; leave known out"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(
    family: str, params: dict[str, Any], problem: str, folder_of: Folders
) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        transformers_forecaster(folder_of(family), **params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "shape", "problem"),
    [
        ("patchtst", (1, 15, 2), "takes histories of 16 steps, the data give 15: give the dataset history=16"),
        ("patchtst", (1, 16, 3), "takes 2 channels, the data have 3"),
        ("transformer", (1, 10, 1), "takes histories of 11 steps, the data give 10"),
        ("transformer with features", (1, 20, 2), r"known=\[2\]: the data have 2 channels"),
        ("transformer with features", (1, 20, 4), "it forecasts 2 series, the data have 3"),
    ],
)
def test_data_that_do_not_fit_are_one_line(
    family: str, shape: tuple[int, ...], problem: str, folder_of: Folders
) -> None:
    with pytest.raises(UsageError, match=problem):
        forecaster(folder_of, family)(torch.rand(shape))


def test_a_network_with_static_features_is_refused(tmp_path: Path) -> None:
    config = transformers.TimeSeriesTransformerConfig(**SAMPLING, num_static_real_features=1)
    transformers.TimeSeriesTransformerForPrediction(config).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="needs static features, which are not offered"):
        transformers_forecaster(str(tmp_path))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_says_which(missing: str, folder_of: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder_of("patchtst"), tmp_path / "copy"))
    (folder / missing).unlink()
    with pytest.raises(UsageError, match=f"the folder has no {missing}; save_pretrained of the model writes them"):
        transformers_forecaster(str(folder))


def test_a_model_of_another_kind_is_refused(folder_of: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder_of("patchtst"), tmp_path / "copy"))
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(UsageError, match="is a 'vit'; forecasters are autoformer, informer, patchtsmixer"):
        transformers_forecaster(str(folder))


def test_a_repository_that_cannot_be_reached_says_how_to_do_without() -> None:
    with pytest.raises(UsageError, match="without internet, name a local folder") as caught:
        transformers_forecaster("nobody-at-all/no-such-model")
    assert "\n" not in str(caught.value)
