"""Trains the forecasters of ETTh1 that `forecasting.py` attacks: `python benchmarks/etth1.py`, a few minutes.

History of 336 hours, horizon of 96, the usual split (8640, 2880 and 2880 hours), all windows. Every one of the seven
series is standardised by its training part and goes through the same network by itself (DLinear's variant with shared
weights, the authors' default); the loss is the mean squared error of all series, by Adam, the learning rate rises to
its peak and falls to 0 (one cycle), and the last weights count: no epoch is chosen by validation. Errors are over all
2785 test windows: none is dropped, where the authors' code leaves out the last batch that is not full.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rbl_files.csv_series import csv_series
from rbl_reference.channelwise import PointForecaster
from rbl_reference.linear_nets import DLinear, NLinear
from rbl_reference.patchtst import PatchTst
from rbl_reference.series_training import Recipe, fit
from rbl_reference.train_digits import reproducible
from robustbench_lab.contracts import Samples
from robustbench_lab.plugin_tools.series_windows import SeriesWindows, Split

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "ETTh1.csv"
TRAINED = Path(__file__).resolve().parent / "models"
HISTORY, HORIZON = 336, 96
SERIES = 7
RECIPES = {
    "DLinear": Recipe(epochs=10, peak_learning_rate=0.001, loss="mse", batch_size=32),
    "DLinear-AT": Recipe(epochs=10, peak_learning_rate=0.001, loss="mse", batch_size=32, training_eps=0.1),
    "NLinear": Recipe(epochs=10, peak_learning_rate=0.005, loss="mse", batch_size=32),
    "PatchTST": Recipe(epochs=6, peak_learning_rate=0.0005, loss="mse", batch_size=128),
}
NETS: dict[str, Callable[[], nn.Module]] = {
    "DLinear": lambda: DLinear(HISTORY, HORIZON),
    "DLinear-AT": lambda: DLinear(HISTORY, HORIZON),
    "NLinear": lambda: NLinear(HISTORY, HORIZON),
    # The width and dropout that the authors take for small data.
    "PatchTST": lambda: PatchTst(HISTORY, HORIZON, patch=16, stride=8, width=16, layers=3, dropout=0.3),
}
PUBLISHED = {
    "DLinear": {"mse": 0.375, "mae": 0.399},
    "NLinear": {"mse": 0.374, "mae": 0.394},
    "PatchTST": {"mse": 0.375, "mae": 0.399},
}
"""At L=336, H=96: the linear ones by Zeng et al. 2023, table 2, PatchTST/42 by Nie et al. 2023, table 3."""


def etth1(split: Split = "test", stride: int = 1) -> SeriesWindows:
    """The windows of a part."""
    parts = (8640, 2880, 2880)
    return csv_series(DATA, "date", history=HISTORY, horizon=HORIZON, parts=parts, stride=stride, split=split)


def train(name: str) -> PointForecaster:
    """A forecaster trained from scratch."""
    series = torch.from_numpy(etth1("train").training_part)
    recipe = RECIPES[name]
    with reproducible(recipe.seed):
        model = PointForecaster(NETS[name](), SERIES)
        model.mean.copy_(series.mean(0))
        model.std.copy_(series.std(0, correction=0))
        fit(model.net, (series - model.mean) / model.std, HISTORY, HORIZON, recipe)
    return model.eval()


def trained(name: str) -> PointForecaster:
    """As `main` has written it."""
    model = PointForecaster(NETS[name](), SERIES)
    model.load_state_dict(load_file(TRAINED / _file(name)))
    return model.eval().requires_grad_(False)


def errors(model: PointForecaster, windows: Samples) -> dict[str, float]:
    """Mean squared and absolute error in training standard deviations, over all windows, steps and series."""
    missed: list[Tensor] = []
    with torch.inference_mode():
        for history, future in zip(windows.inputs.split(256), windows.targets["future"].split(256), strict=True):
            missed.append((model(history) - future) / model.std)
    every = torch.cat(missed)
    return {"mse": float(every.square().mean()), "mae": float(every.abs().mean())}


def _file(name: str) -> str:
    return f"etth1-{name.lower()}.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(RECIPES), help="one of them, not all")
    parser.add_argument("--out", type=Path, default=TRAINED, help="folder for the weights")
    asked = parser.parse_args()
    data = etth1()
    windows = data.load(range(len(data.sample_ids)))
    asked.out.mkdir(exist_ok=True)
    for name in [asked.only] if asked.only else RECIPES:
        model = train(name)
        save_file(model.state_dict(), asked.out / _file(name))
        print(json.dumps({"model": name, "windows": len(windows.inputs), **errors(model, windows)}), flush=True)


if __name__ == "__main__":
    main()
