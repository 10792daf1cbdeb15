"""Checkpoints of neuralforecast: `neuralforecast:<Model>(path=...)`, against the library's own `predict`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("neuralforecast", reason="needs neuralforecast: pip install --no-deps -r tests/no-deps.txt")

import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MQLoss
from neuralforecast.models import LSTM, NHITS, DeepAR, DLinear, PatchTST, TSMixer, iTransformer

from rbl_neuralforecast.neuralforecast_forecaster import neuralforecast_forecaster
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.forecast_output import Quantiles

STEPS, HISTORY, HORIZON = 60, 24, 6
TRAINER = {
    "max_steps": 2,
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}
SHAPE = {"h": HORIZON, "input_size": HISTORY, **TRAINER}
SMALL = {"mlp_units": [[8, 8]] * 3}
KINDS = {
    "NHITS": "NHITS",
    "DLinear": "DLinear",
    "PatchTST": "PatchTST",
    "LSTM": "LSTM",
    "TSMixer": "TSMixer",
    "iTransformer": "iTransformer",
}


def networks() -> list[Any]:
    heads = {"hidden_size": 8, "n_heads": 2}
    return [
        NHITS(**SHAPE, **SMALL, scaler_type="standard"),
        NHITS(**SHAPE, **SMALL, scaler_type="robust", loss=MQLoss(level=[80]), alias="quantiles"),
        NHITS(**SHAPE, **SMALL, hist_exog_list=["past"], futr_exog_list=["known"], alias="covariates"),
        DLinear(**SHAPE),
        PatchTST(**SHAPE, **heads, linear_hidden_size=8, patch_len=4, stride=4, encoder_layers=1),
        LSTM(**SHAPE, recurrent=True, scaler_type="standard", encoder_hidden_size=4, decoder_hidden_size=4),
        TSMixer(**SHAPE, n_series=2, n_block=1, ff_dim=4),
        iTransformer(**SHAPE, **heads, n_series=2, e_layers=1, d_ff=8, scaler_type="standard"),
    ]


def series() -> pd.DataFrame:
    """Two series with two covariates, hour by hour."""
    random, hours = np.random.default_rng(0), np.arange(STEPS + HORIZON)
    parts = [
        pd.DataFrame(
            {
                "unique_id": f"series {one}",
                "ds": pd.date_range("2020", periods=len(hours), freq="h"),
                "y": 10 + np.sin(hours / 4 + one) + 0.1 * random.normal(size=len(hours)),
                "past": random.normal(size=len(hours)),
                "known": random.normal(size=len(hours)),
            }
        )
        for one in range(2)
    ]
    return pd.concat(parts).reset_index(drop=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A folder as the library saves it, and its forecasts."""
    frame, folder = series(), tmp_path_factory.mktemp("neuralforecast") / "models"
    past = frame[frame.groupby("unique_id").cumcount() < STEPS]
    core = NeuralForecast(networks(), freq="h")
    core.fit(past)
    core.save(str(folder), save_dataset=False)
    future = frame[frame.groupby("unique_id").cumcount() >= STEPS]
    return folder, core.predict(df=past, futr_df=future[["unique_id", "ds", "known"]])


def history() -> Tensor:
    values = series()["y"].to_numpy().reshape(2, -1)[:, :STEPS]
    return torch.tensor(values.T, dtype=torch.float32)[None]


def wanted(forecasts: pd.DataFrame, column: str) -> np.ndarray:
    values: np.ndarray = forecasts[column].to_numpy().reshape(2, HORIZON).T
    return values


@pytest.mark.parametrize("name", KINDS)
def test_points_are_the_librarys_own_with_gradient(name: str, saved: tuple[Path, pd.DataFrame]) -> None:
    folder, forecasts = saved
    model = neuralforecast_forecaster(KINDS[name], path=str(folder / f"{name}_0.safetensors"))
    x = torch.cat([history(), history() + 1]).requires_grad_()
    made = model(x)
    np.testing.assert_allclose(made[0].detach(), wanted(forecasts, name), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(x[1:]), made[1:])
    direction, step = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), 1e-2
    (gradient,) = torch.autograd.grad(made.sum(), x)
    with torch.no_grad():
        slope = (model(x + step * direction).double() - model(x - step * direction)).sum() / (2 * step)
    torch.testing.assert_close((gradient * direction).sum().double(), slope, rtol=0.01, atol=0.01)


def test_quantiles_are_the_librarys_own(saved: tuple[Path, pd.DataFrame]) -> None:
    folder, forecasts = saved
    made = neuralforecast_forecaster("NHITS", path=str(folder / "quantiles_0.safetensors"))(history())
    assert isinstance(made, Quantiles)
    assert made.levels == (0.1, 0.5, 0.9)
    for place, column in enumerate(("quantiles-lo-80", "quantiles-median", "quantiles-hi-80")):
        np.testing.assert_allclose(made.values[0, :, :, place].detach(), wanted(forecasts, column), rtol=1e-5)


def test_covariates_of_the_past_and_of_the_future_are_channels(saved: tuple[Path, pd.DataFrame]) -> None:
    folder, forecasts = saved
    model = neuralforecast_forecaster("NHITS", path=str(folder / "covariates_0.safetensors"), past=[1], known=[2])
    windows = torch.tensor(series()[["y", "past", "known"]].to_numpy(), dtype=torch.float32).reshape(2, -1, 3)
    windows[:, STEPS:, :2] = 0
    made = model(windows)[:, :, 0].T
    np.testing.assert_allclose(made.detach(), wanted(forecasts, "covariates"), rtol=1e-5)


def test_what_cannot_be_loaded_is_one_line(saved: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    folder, _ = saved
    file = str(folder / "NHITS_0.safetensors")
    DeepAR(**SHAPE, lstm_hidden_size=4).save(str(tmp_path / "DeepAR_0.safetensors"))
    torch.save({"weights": torch.zeros(1)}, tmp_path / "NHITS_0.ckpt")
    scaled = Path(shutil.copytree(folder, tmp_path / "scaled"))
    configuration = json.loads((scaled / "configuration.json").read_text())
    configuration["configuration"]["local_scaler_type"] = "standard"
    (scaled / "configuration.json").write_text(json.dumps(configuration))
    for name, params, problem in (
        ("NHIT", {"path": file}, "neuralforecast has no such model. Did you mean 'NHITS'"),
        ("NBEATS", {"path": file}, "cannot load .* holds a NHITS checkpoint"),
        ("DeepAR", {"path": str(tmp_path / "DeepAR_0.safetensors")}, "draws at random without gradient: train it with"),
        ("NHITS", {"path": str(tmp_path / "NHITS_0.ckpt")}, "older checkpoints are pickled programs"),
        ("NHITS", {"path": str(scaled / "NHITS_0.safetensors")}, r"scaled outside of the model \(local_scaler_type\)"),
        ("NHITS", {"path": file, "past": [1]}, r"it needs past=\[...\], the channels of no covariates"),
        ("NHITS", {"path": str(folder / "covariates_0.safetensors"), "past": [1]}, r"needs known=\[...\], .* of known"),
    ):
        with pytest.raises(UsageError, match=problem) as caught:
            neuralforecast_forecaster(name, **params)
        assert "\n" not in str(caught.value)


def test_a_history_that_is_too_short_is_one_line(saved: tuple[Path, pd.DataFrame]) -> None:
    model = neuralforecast_forecaster("NHITS", path=str(saved[0] / "NHITS_0.safetensors"))
    with pytest.raises(UsageError, match="takes histories of 24 steps, the data give 20"):
        model(history()[:, :20])
