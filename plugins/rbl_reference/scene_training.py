"""Training on scenes, clean or adversarial: what the recipes of the detectors and of the U-Nets share.

Adversarial training replaces every batch by PGD adversarial examples of the current model (Madry et al. 2018). Batch
normalisation makes training several times shorter; afterwards it is folded into the convolutions, so the bundled
networks have none.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rbl_reference import SCENES_EPS
from rbl_reference.train_digits import reproducible
from robustbench_lab.contracts import Dataset, Samples

BATCH_SIZE = 32
PEAK_LEARNING_RATE, WEIGHT_DECAY = 0.01, 1e-4
TRAINING_STEPS = 2
"""PGD steps that make a training example."""

EVALUATION_STEPS = 20
CHECKED_STEPS = 5
"""Training steps whose losses the weights' metadata holds, so that a test can tell soon whether the recipe changed."""

LossesOf = Callable[[nn.Module, Tensor, Any], Tensor]
"""Model, images and their targets to the training loss of each image, `[N]`."""


@dataclass(frozen=True)
class Recipe:
    """What differs between the models of one kind."""

    epochs: int
    training_eps: float
    """l-infinity budget of the training examples; 0 trains on clean scenes."""
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """A network and the mean loss of each training step."""

    model: nn.Module
    losses: list[float]


@dataclass(frozen=True)
class Subject:
    """What is trained: one kind of network on one kind of target."""

    make: Callable[[], nn.Module]
    losses_of: LossesOf
    quality: Callable[[nn.Module, Tensor, Any], dict[str, float]]
    """Of a model on images and their targets: the figures that go with its weights."""


def pgd(
    model: nn.Module, images: Tensor, targets: Any, losses_of: LossesOf, eps: float, steps: int, step: float
) -> Tensor:
    """Images `[N, 3, H, W]` within eps in l-infinity: sign steps up the training loss from a random start."""
    adversarial = (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        (gradient,) = torch.autograd.grad(losses_of(model, adversarial, targets).sum(), adversarial)
        moved = adversarial.detach() + step * gradient.sign()
        adversarial = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    return adversarial


def train(
    make: Callable[[], nn.Module], losses_of: LossesOf, recipe: Recipe, data: Dataset, most_steps: int | None = None
) -> Trained:
    """A network trained from scratch, or the first steps of that."""
    count, losses = len(data.sample_ids), list[float]()
    steps = recipe.epochs * -(-count // BATCH_SIZE)
    with reproducible(recipe.seed):
        model = make().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        insert_batch_norm(model)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
        for index in [part for _ in range(recipe.epochs) for part in torch.randperm(count).split(BATCH_SIZE)]:
            if len(losses) == most_steps:
                break
            batch = data.load(index.tolist())
            images = batch.inputs.contiguous(memory_format=torch.channels_last)
            # The budget grows over the first half: with the whole of it from the start nothing is learnt for long.
            eps = recipe.training_eps * min(1.0, 2 * len(losses) / steps)
            if eps > 0:
                step = 1.25 * eps / TRAINING_STEPS
                images = pgd(model.eval(), images, batch.targets, losses_of, eps, TRAINING_STEPS, step)
            loss = losses_of(model.train(), images, batch.targets).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    fold_batch_norm(model.eval())
    return Trained(model.to(memory_format=torch.contiguous_format), losses)


def insert_batch_norm(model: nn.Module) -> None:
    """Between each convolution and its ReLU."""
    for block in blocks_of(model):
        if isinstance(convolution := block[0], nn.Conv2d):
            block.insert(1, nn.BatchNorm2d(convolution.out_channels))


def fold_batch_norm(model: nn.Module) -> None:
    """The same function without batch normalisation: its scale and shift go into the convolutions."""
    for block in blocks_of(model):
        convolution, norm = block[0], block[1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block[0] = fuse_conv_bn_eval(convolution, norm)
            del block[1]


def blocks_of(model: nn.Module) -> list[nn.Sequential]:
    """The sequences of a convolution and what follows it."""
    sequences = [module for module in model.modules() if isinstance(module, nn.Sequential)]
    return [block for block in sequences if isinstance(block[0], nn.Conv2d)]


def write_weights(recipe: Recipe, subject: Subject, training: Dataset, test: Samples, file: Path) -> str:
    """Train a network, write it as safetensors, and return what went with it: how it was made, and how good it is."""
    trained = train(subject.make, subject.losses_of, recipe, training)
    # One entry, because safetensors writes several in random order and the file's bytes would differ every time.
    metadata = json.dumps({**asdict(recipe), "scenes": len(training.sample_ids), **_described(subject, trained, test)})
    file.write_bytes(save(trained.model.state_dict(), metadata={"recipe": metadata}))
    return metadata


def _described(subject: Subject, trained: Trained, test: Samples) -> dict[str, object]:
    with reproducible(seed=0):
        attacked = pgd(
            trained.model,
            test.inputs,
            test.targets,
            subject.losses_of,
            SCENES_EPS,
            EVALUATION_STEPS,
            SCENES_EPS / 4,
        )
    return {
        "first_losses": [round(loss, 4) for loss in trained.losses[:CHECKED_STEPS]],
        "clean": subject.quality(trained.model, test.inputs, test.targets),
        "attacked": subject.quality(trained.model, attacked, test.targets),
        "attacked_with": f"PGD linf {SCENES_EPS:.4f}, {EVALUATION_STEPS} steps up the training loss, last iterate",
        "libraries": {name: version(name) for name in ("torch", "numpy", "scikit-learn", "pillow")},
    }
