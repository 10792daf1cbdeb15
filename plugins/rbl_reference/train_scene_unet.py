"""The recipe of the bundled U-Nets: `python -m rbl_reference.train_scene_unet --out FOLDER`, one thread.

Adversarial training as in Madry et al. 2018 (https://arxiv.org/abs/1706.06083), with the mean cross-entropy of an
image's pixels as the loss.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional

from rbl_reference import SCENES_EPS
from rbl_reference.scene_masks import SceneMasks
from rbl_reference.scene_training import Recipe, Subject, write_weights
from rbl_reference.scene_unet import SceneUNet
from robustbench_lab.tasks.segmentation import Segmentation, mean_iou

SCENES = 8000
EVALUATED = 100
"""Test scenes behind the figures that go with the weights."""

RECIPES = {
    "scene-unet": Recipe(epochs=8, training_eps=0.0),
    "scene-unet-at": Recipe(epochs=6, training_eps=SCENES_EPS),
}


def training_scenes() -> SceneMasks:
    """What both models are trained on."""
    return SceneMasks(split="train", scenes=SCENES)


def losses_of(model: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
    """The mean cross-entropy of each image's pixels, `[N]`."""
    return functional.cross_entropy(model(images), masks.long(), reduction="none").mean((1, 2))


def quality(model: nn.Module, images: Tensor, masks: Tensor) -> dict[str, float]:
    """Mean IoU over the classes, and the share of pixels that are right."""
    with torch.no_grad():
        counts = {name: value.numpy() for name, value in Segmentation().measure(model(images), masks).items()}
    right, truth = counts["right"].sum(0), counts["truth"].sum(0)
    miou = mean_iou(right, counts["predicted"].sum(0), truth)
    return {"miou": round(float(miou), 4), "pixel_accuracy": round(float(right.sum() / truth.sum()), 4)}


def main(
    out: Annotated[Path, typer.Option(file_okay=False, writable=True, help="Folder for the two files.")] = Path(),
) -> None:
    """Train both bundled U-Nets and write them as safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    subject = Subject(SceneUNet, losses_of, quality)
    data, test = training_scenes(), SceneMasks(scenes=EVALUATED).load(range(EVALUATED))
    for name, recipe in RECIPES.items():
        typer.echo(f"{name}: {write_weights(recipe, subject, data, test, out / f'{name}.safetensors')}")


if __name__ == "__main__":
    typer.run(main)
