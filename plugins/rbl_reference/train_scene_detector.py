"""The recipe of the bundled detectors: `python -m rbl_reference.train_scene_detector --out FOLDER`, one thread.

Adversarial training as in Zhang & Wang 2019 (https://arxiv.org/abs/1907.10310) with the whole training loss as the
attacked one.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from rbl_reference import SCENES_EPS
from rbl_reference.scene_fcos import SceneFCOS
from rbl_reference.scene_training import Recipe, Subject, write_weights
from rbl_reference.scenes import DigitScenes
from robustbench_lab.tasks.average_precision import StoredScenes, average_precision
from robustbench_lab.tasks.detection_measures import Matches, scene_of

SCENES = 8000
EVALUATED = 100
"""Test scenes behind the figures that go with the weights."""

Targets = dict[str, Tensor]

RECIPES = {
    "scene-fcos": Recipe(epochs=14, training_eps=0.0),
    "scene-fcos-at": Recipe(epochs=14, training_eps=SCENES_EPS),
}


def training_scenes() -> DigitScenes:
    """What both models are trained on."""
    return DigitScenes(split="train", scenes=SCENES)


def losses_of(model: nn.Module, images: Tensor, targets: Targets) -> Tensor:
    """The training loss of each image, `[N]`."""
    losses: Tensor = model(images).loss_of(targets["boxes"], targets["labels"])
    return losses


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


def main(
    out: Annotated[Path, typer.Option(file_okay=False, writable=True, help="Folder for the two files.")] = Path(),
) -> None:
    """Train both bundled detectors and write them as safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    subject = Subject(SceneFCOS, losses_of, quality)
    data, test = training_scenes(), DigitScenes(scenes=EVALUATED).load(range(EVALUATED))
    for name, recipe in RECIPES.items():
        typer.echo(f"{name}: {write_weights(recipe, subject, data, test, out / f'{name}.safetensors')}")


if __name__ == "__main__":
    typer.run(main)
