"""Chronos of three generations: `chronos:<folder>`, against the library's own pipelines."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chronos import BaseChronosPipeline, Chronos2Model
from chronos.chronos2 import Chronos2CoreConfig
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from rbl_chronos.chronos_forecaster import chronos_forecaster
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.forecast_output import Paths, Quantiles

LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
PATCHES = {"context_length": 32, "input_patch_size": 4, "input_patch_stride": 4, "use_reg_token": True}
TOKENS = {
    "tokenizer_class": "MeanScaleUniformBins",
    "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
    "context_length": 32,
    "prediction_length": 4,
    "n_tokens": 256,
    "n_special_tokens": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "use_eos_token": True,
    "model_type": "seq2seq",
    "num_samples": 5,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
Folders = Callable[[str], str]


def networks(generation: str) -> Any:
    if generation == "bolt":
        own: dict[str, Any] = {**PATCHES, "prediction_length": 8, "quantiles": LEVELS}
        return ChronosBoltModelForForecasting(
            T5Config(**T5, chronos_pipeline_class="ChronosBoltPipeline", chronos_config=own, decoder_start_token_id=0)
        )
    if generation == "2":
        own = {**PATCHES, "output_patch_size": 4, "quantiles": LEVELS, "use_arcsinh": True, "max_output_patches": 4}
        size = {name: T5[name] for name in ("d_model", "d_kv", "d_ff", "num_layers", "num_heads")}
        return Chronos2Model(Chronos2CoreConfig(**size, chronos_pipeline_class="Chronos2Pipeline", chronos_config=own))
    config = T5Config(**T5, vocab_size=256, chronos_config=TOKENS, eos_token_id=1, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The folder of a tiny random network, as `save_pretrained` writes it."""
    root = tmp_path_factory.mktemp("chronos")

    def made(generation: str) -> str:
        folder = root / generation
        if not folder.exists():
            torch.manual_seed(0)
            net = networks(generation)
            with torch.no_grad():
                for weight in net.parameters():
                    weight += 0.2 * torch.randn(weight.shape)
            net.save_pretrained(folder)
        return str(folder)

    return made


def windows(steps: int = 24, channels: int = 2) -> Tensor:
    return 10 + torch.randn((3, steps, channels), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("horizon", [None, 5, 20])
@pytest.mark.filterwarnings("ignore:We recommend")
def test_bolts_quantiles_are_the_pipelines_at_any_horizon(horizon: int | None, folder_of: Folders) -> None:
    x, own = windows(40), BaseChronosPipeline.from_pretrained(folder_of("bolt"))
    made = chronos_forecaster(folder_of("bolt"), horizon=horizon)(x)
    assert isinstance(made, Quantiles)
    assert made.levels == tuple(LEVELS)
    wanted = own.predict(x.transpose(1, 2).flatten(0, 1), prediction_length=horizon)  # [N * C, Q, H]
    wanted = torch.unflatten(wanted, 0, (3, 2)).permute(0, 3, 1, 2)
    torch.testing.assert_close(made.values, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("joint", [True, False])
def test_the_second_generations_quantiles_are_the_pipelines(joint: bool, folder_of: Folders) -> None:
    x, own = windows(), BaseChronosPipeline.from_pretrained(folder_of("2"))
    made = chronos_forecaster(folder_of("2"), horizon=6, joint=joint)(x).values
    given = x.transpose(1, 2)
    wanted = torch.stack(own.predict(given if joint else given.reshape(6, 1, -1), prediction_length=6))
    torch.testing.assert_close(made, wanted.reshape(3, 2, 9, 6).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)
    # Only together do the series learn of each other.
    alone = chronos_forecaster(folder_of("2"), horizon=6, joint=joint)(x[:, :, :1]).values
    assert torch.allclose(alone, made[:, :, :1], atol=1e-4) is not joint


def test_the_second_generation_takes_covariates_of_the_past_and_of_the_future(folder_of: Folders) -> None:
    x, own = windows(30, 3).requires_grad_(), BaseChronosPipeline.from_pretrained(folder_of("2"))
    made = chronos_forecaster(folder_of("2"), horizon=6, series=1, known=[2])(x).values
    tasks = [
        {
            "target": one[:24, 0],
            "past_covariates": {"past": one[:24, 1], "known": one[:24, 2]},
            "future_covariates": {"known": one[24:, 2]},
        }
        for one in x.detach()
    ]
    wanted = torch.stack(own.predict(tasks, prediction_length=6)).permute(0, 3, 1, 2)
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(made.sum(), x)
    assert gradient[:, :24].abs().sum((0, 1)).gt(0).all()
    assert gradient[:, 24:, 2].any()
    assert not gradient[:, 24:, :2].any()


@pytest.mark.parametrize(("generation", "horizon"), [("bolt", 8), ("bolt", 12), ("2", 6)])
def test_the_gradient_is_that_of_finite_differences(generation: str, horizon: int, folder_of: Folders) -> None:
    model, x = chronos_forecaster(folder_of(generation), horizon=horizon), windows()
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(model(x).values.shape, generator=generator)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((model(leaf).values * weight).sum(), leaf)
    # The library scales in float32 in any case; beyond the first steps the order of quantiles changes at kinks, which a
    # few of the directions meet.
    step, errors = 2e-4, []
    for _ in range(7):
        direction = torch.randn(x.shape, generator=generator)
        with torch.no_grad():
            ahead, behind = (model(x + sign * step * direction).values.double() * weight for sign in (1, -1))
        slope = (ahead - behind).sum() / (2 * step)
        errors.append(abs((gradient * direction).double().sum() - slope) / (0.1 + 0.05 * slope.abs()))
    assert torch.stack(errors).median() < 1


def test_the_first_generation_is_a_black_box_whose_paths_are_the_pipelines(folder_of: Folders) -> None:
    model, x = chronos_forecaster(folder_of("1")), windows().requires_grad_()
    made = model(x)
    assert isinstance(made, Paths)
    assert made.values.shape == (3, 4, 2, 5)
    assert not made.values.requires_grad
    own = BaseChronosPipeline.from_pretrained(folder_of("1"))
    torch.manual_seed(0)
    assert torch.equal(made.values[2, :, 1].T, own.predict(x[2, :, 1].detach())[0])
    assert torch.equal(model(x[1:2]).values, made.values[1:2])
    assert made.values.std() > 0
    longer = chronos_forecaster(folder_of("1"), horizon=6, paths=2)(x)
    assert longer.values.shape == (3, 6, 2, 2)


def test_random_numbers_outside_are_left_alone(folder_of: Folders) -> None:
    model = chronos_forecaster(folder_of("1"), paths=1)
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    model(windows())
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"chronos_pipeline_class": "Mine"}, "its configuration is not one of Chronos2Pipeline, ChronosBoltPipeline"),
        ({"chronos_config": None}, "its configuration is not one of"),
        ({"chronos_config": {**TOKENS, "tokenizer_class": "BaseChronosPipeline"}}, "its tokeniser 'BaseChronos"),
    ],
)
def test_a_configuration_that_is_not_known_is_refused(
    change: dict[str, Any], problem: str, folder_of: Folders, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folder_of("1"), tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UsageError, match=problem) as caught:
        chronos_forecaster(str(folder))
    assert "\n" not in str(caught.value)


def test_a_horizon_beyond_the_second_generations_is_refused(folder_of: Folders) -> None:
    with pytest.raises(UsageError, match="horizon=17: it forecasts 16 steps"):
        chronos_forecaster(folder_of("2"), horizon=17)


def test_a_folder_without_weights_says_so(folder_of: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder_of("bolt"), tmp_path / "copy"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"^chronos:.*: the folder has no model\.safetensors"):
        chronos_forecaster(str(folder))
