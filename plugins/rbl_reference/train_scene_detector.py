"""The recipe of the bundled detectors: `python -m rbl_reference.train_scene_detector --out FOLDER`, one thread.

Adversarial training as in Zhang & Wang 2019 (https://arxiv.org/abs/1907.10310) with the whole training loss as the
attacked one: every batch is replaced by PGD adversarial examples of the current model. Batch normalisation makes
training several times shorter; afterwards it is folded into the convolutions, so the bundled network has none.
"""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rbl_reference import SCENES_EPS
from rbl_reference.scene_fcos import SceneFCOS
from rbl_reference.scenes import DigitScenes
from rbl_reference.train_digits import reproducible
from robustbench_lab.tasks.average_precision import StoredScenes, average_precision
from robustbench_lab.tasks.detection_measures import Matches, scene_of

SCENES = 8000
BATCH_SIZE = 32
PEAK_LEARNING_RATE, WEIGHT_DECAY = 0.01, 1e-4
TRAINING_STEPS = 2
"""PGD steps that make a training example."""
EVALUATION_STEPS = 20
EVALUATED = 100
"""Test scenes behind the figures that go with the weights."""
CHECKED_STEPS = 5
"""Training steps whose losses the weights' metadata holds, so that a test can tell soon whether the recipe changed."""

Targets = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """What differs between the two models."""

    epochs: int
    training_eps: float
    """l-infinity budget of the training examples; 0 trains on clean scenes."""
    seed: int = 0


RECIPES = {
    "scene-fcos": Recipe(epochs=14, training_eps=0.0),
    "scene-fcos-at": Recipe(epochs=14, training_eps=SCENES_EPS),
}


@dataclass(frozen=True)
class Trained:
    """A network and the mean loss of each training step."""

    model: SceneFCOS
    losses: list[float]


def training_scenes() -> DigitScenes:
    """What both models are trained on."""
    return DigitScenes(split="train", scenes=SCENES)


def pgd(model: nn.Module, images: Tensor, targets: Targets, eps: float, steps: int, step: float) -> Tensor:
    """Images `[N, 3, H, W]` within eps in l-infinity: sign steps up the training loss from a random start."""
    adversarial = (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        (gradient,) = torch.autograd.grad(losses_of(model, adversarial, targets).sum(), adversarial)
        moved = adversarial.detach() + step * gradient.sign()
        adversarial = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    return adversarial


def losses_of(model: nn.Module, images: Tensor, targets: Targets) -> Tensor:
    """The training loss of each image, `[N]`."""
    losses: Tensor = model(images).loss_of(targets["boxes"], targets["labels"])
    return losses


def train(recipe: Recipe, data: DigitScenes, most_steps: int | None = None) -> Trained:
    """A network trained from scratch, or the first steps of that."""
    count, losses = len(data.sample_ids), list[float]()
    steps = recipe.epochs * -(-count // BATCH_SIZE)
    with reproducible(recipe.seed):
        model = SceneFCOS().to(memory_format=torch.channels_last)
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
                images = pgd(model.eval(), images, batch.targets, eps, TRAINING_STEPS, 1.25 * eps / TRAINING_STEPS)
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


def quality(model: nn.Module, images: Tensor, targets: Targets) -> dict[str, float]:
    """COCO mAP, mAP at IoU .5, and the share of objects found at the working point."""
    with torch.no_grad():
        detections = model(images).detections
    boxes, scores, labels = (detections[name].numpy() for name in ("boxes", "scores", "labels"))
    truth = {name: values.numpy() for name, values in targets.items()}
    # Stored labels count from 1.
    ap = average_precision(
        StoredScenes(boxes, scores, (labels + 1).astype("int16"), truth["boxes"], truth["labels"] + 1, truth["crowd"])
    )
    scene = scene_of(targets)
    found = Matches(scene, detections).found.sum() / scene.real.sum()
    return {"map": round(ap.value, 4), "map50": round(ap.value_at_50, 4), "found": round(found.item(), 4)}


def describe(recipe: Recipe, trained: Trained) -> dict[str, object]:
    """What a reader of the weights wants to know: how they were made, and how good they are."""
    test = DigitScenes(scenes=EVALUATED).load(range(EVALUATED))
    with reproducible(seed=0):
        attacked = pgd(trained.model, test.inputs, test.targets, SCENES_EPS, EVALUATION_STEPS, SCENES_EPS / 4)
    return {
        **asdict(recipe),
        "scenes": SCENES,
        "first_losses": [round(loss, 4) for loss in trained.losses[:CHECKED_STEPS]],
        "clean": quality(trained.model, test.inputs, test.targets),
        "attacked": quality(trained.model, attacked, test.targets),
        "attacked_with": f"PGD linf {SCENES_EPS:.4f}, {EVALUATION_STEPS} steps up the training loss, last iterate",
        "libraries": {name: version(name) for name in ("torch", "numpy", "scikit-learn", "pillow")},
    }


def main(
    out: Annotated[Path, typer.Option(file_okay=False, writable=True, help="Folder for the two files.")] = Path(),
) -> None:
    """Train both bundled detectors and write them as safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    data = training_scenes()
    for name, recipe in RECIPES.items():
        trained = train(recipe, data)
        # One entry, because safetensors writes several in random order and the file's bytes would differ every time.
        metadata = json.dumps(describe(recipe, trained))
        (out / f"{name}.safetensors").write_bytes(save(trained.model.state_dict(), metadata={"recipe": metadata}))
        typer.echo(f"{name}: {metadata}")


if __name__ == "__main__":
    typer.run(main)
