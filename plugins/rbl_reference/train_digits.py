"""The recipe of the bundled weights: `python -m rbl_reference.train_digits --out FOLDER`, a minute on one thread.

Adversarial training as in Madry et al. 2018 (https://arxiv.org/abs/1706.06083): every batch is replaced by PGD
adversarial examples of the current model. The PGD here is the recipe's own, so that these weights depend on no
attack of the catalog.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from rbl_reference import DIGITS_EPS
from rbl_reference.digits import Digits, Split
from rbl_reference.digits_cnn import DigitsCNN

BATCH_SIZE = 64
PEAK_LEARNING_RATE = 0.01
TRAINING_STEPS = 7
"""PGD steps that make a training example."""
EVALUATION_STEPS, EVALUATION_RESTARTS = 100, 5


@dataclass(frozen=True)
class Recipe:
    """What differs between the two models."""

    epochs: int
    training_eps: float
    """l-infinity budget of the training examples; 0 trains on clean images."""
    seed: int = 0


RECIPES = {
    "digits-cnn": Recipe(epochs=15, training_eps=0.0),
    "digits-cnn-at": Recipe(epochs=50, training_eps=0.18),
}


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread, deterministic kernels and seeded random numbers: bit by bit the same on one CPU and torch build."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)


def read_split(split: Split) -> tuple[Tensor, Tensor]:
    """All images `[N, 1, 8, 8]` and classes `[N]` of a split."""
    data = Digits(split=split)
    samples = data.load(range(len(data.sample_ids)))
    return samples.inputs, samples.targets


def pgd(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """Adversarial images `[N, 1, 8, 8]` within eps in l-infinity: sign steps of 2.5 eps / steps from a random start."""
    adversarial = (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = functional.cross_entropy(model(adversarial), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        moved = adversarial.detach() + 2.5 * eps / steps * gradient.sign()
        adversarial = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    return adversarial


def train(recipe: Recipe) -> DigitsCNN:
    """A network trained from scratch on the training split."""
    images, labels = read_split("train")
    with reproducible(recipe.seed):
        model = DigitsCNN()
        optimizer = torch.optim.Adam(model.parameters())
        batches = -(-len(images) // BATCH_SIZE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, PEAK_LEARNING_RATE, epochs=recipe.epochs, steps_per_epoch=batches
        )
        for epoch in range(recipe.epochs):
            # The budget grows over the first third: with the whole of it from the start some runs never learn.
            eps = recipe.training_eps * min(1.0, 3 * (epoch + 1) / recipe.epochs)
            for index in torch.randperm(len(images)).split(BATCH_SIZE):
                batch, wanted = images[index], labels[index]
                if eps > 0:
                    batch = pgd(model, batch, wanted, eps, TRAINING_STEPS)
                optimizer.zero_grad()
                functional.cross_entropy(model(batch), wanted).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def is_right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image `[N, 1, 8, 8]` gets its class, bool `[N]`."""
    with torch.no_grad():
        predicted: Tensor = model(images).argmax(dim=1)
    return predicted == labels


def robust_accuracy(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> float:
    """Share of the samples that no restart of a long PGD breaks."""
    unbroken = is_right(model, images, labels)
    with reproducible(seed=0):
        for _ in range(EVALUATION_RESTARTS):
            adversarial = pgd(model, images, labels, eps, EVALUATION_STEPS)
            unbroken &= is_right(model, adversarial, labels)
    return unbroken.float().mean().item()


def describe(recipe: Recipe, model: nn.Module) -> dict[str, object]:
    """What a reader of the weights wants to know: how they were made, and how good they are."""
    images, labels = read_split("test")
    return {
        **asdict(recipe),
        "clean_accuracy": round(is_right(model, images, labels).float().mean().item(), 4),
        "robust_accuracy": round(robust_accuracy(model, images, labels, DIGITS_EPS), 4),
        "evaluated_with": f"PGD linf {DIGITS_EPS}, {EVALUATION_STEPS} steps, {EVALUATION_RESTARTS} restarts",
        "libraries": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
    }


def main(
    out: Annotated[Path, typer.Option(file_okay=False, writable=True, help="Folder for the two files.")] = Path(),
) -> None:
    """Train both bundled digit classifiers and write them as safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    for name, recipe in RECIPES.items():
        model = train(recipe)
        # One entry, because safetensors writes several in random order and the file's bytes would differ every time.
        metadata = json.dumps(describe(recipe, model))
        (out / f"{name}.safetensors").write_bytes(save(model.state_dict(), metadata={"recipe": metadata}))
        typer.echo(f"{name}: {metadata}")


if __name__ == "__main__":
    typer.run(main)
