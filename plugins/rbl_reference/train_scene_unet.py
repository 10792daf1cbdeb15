"""The recipe of the bundled U-Nets: `python -m rbl_reference.train_scene_unet --out FOLDER`, one thread.

Adversarial training as in Madry et al. 2018 (https://arxiv.org/abs/1706.06083), with the mean cross-entropy of an
image's pixels as the loss.
"""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from rbl_reference import SCENES_EPS
from rbl_reference.scene_masks import SceneMasks
from rbl_reference.scene_training import Recipe, Trained, pgd, train
from rbl_reference.scene_unet import SceneUNet
from rbl_reference.train_digits import reproducible
from robustbench_lab.tasks.segmentation import Segmentation, mean_iou

SCENES = 8000
EVALUATION_STEPS = 20
EVALUATED = 100
"""Test scenes behind the figures that go with the weights."""
CHECKED_STEPS = 5
"""Training steps whose losses the weights' metadata holds, so that a test can tell soon whether the recipe changed."""

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


def describe(recipe: Recipe, trained: Trained) -> dict[str, object]:
    """What a reader of the weights wants to know: how they were made, and how good they are."""
    test = SceneMasks(scenes=EVALUATED).load(range(EVALUATED))
    with reproducible(seed=0):
        attacked = pgd(
            trained.model, test.inputs, test.targets, losses_of, SCENES_EPS, EVALUATION_STEPS, SCENES_EPS / 4
        )
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
    """Train both bundled U-Nets and write them as safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    data = training_scenes()
    for name, recipe in RECIPES.items():
        trained = train(SceneUNet, losses_of, recipe, data)
        # One entry, because safetensors writes several in random order and the file's bytes would differ every time.
        metadata = json.dumps(describe(recipe, trained))
        (out / f"{name}.safetensors").write_bytes(save(trained.model.state_dict(), metadata={"recipe": metadata}))
        typer.echo(f"{name}: {metadata}")


if __name__ == "__main__":
    typer.run(main)
