"""The recipe of `sac`'s network: `python -m rbl_defenses.train_patch_segmenter --out FOLDER`, one thread.

As in segment and complete (Liu, Levine, Lau, Chellappa & Feizi, CVPR 2022, https://arxiv.org/abs/2112.04532), the
network is trained on patches against a detector and on patches against itself. Scenes are the bundled training ones;
the detector is `scene-fcos`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from rbl_defenses.patch_segmenter import PatchSegmenter
from rbl_reference.scene_fcos import scene_fcos
from rbl_reference.scene_training import CHECKED_STEPS, fold_batch_norm, insert_batch_norm
from rbl_reference.scenes import SIZE, DigitScenes
from rbl_reference.train_digits import reproducible
from robustbench_lab.contracts import Samples

SCENES = 3000
EVALUATED = 100
"""Test scenes behind the figures that go with the weights."""
SIDES = 8, 28
"""Pixels of a patch's side, least and most."""
CLEAN = 0.25
"""Share of training scenes without a patch."""
KINDS = ("noise", "detector", "segmenter", "both")
"""What the patches of a batch are made against, in turn."""

Slope = Callable[[Tensor], Tensor]
"""Images `[N, 3, H, W]` to where what the patch is made for rises, of the same shape."""


@dataclass(frozen=True)
class PatchRecipe:
    """How the network is trained."""

    batches: int = 480
    batch_size: int = 32
    peak_learning_rate: float = 0.01
    patch_steps: int = 6
    """Sign steps that make an adversarial patch."""
    step_size: float = 0.2
    seed: int = 0


RECIPE = PatchRecipe()


@dataclass(frozen=True)
class PatchedScenes:
    """Scenes with a square window each, and what stands in it."""

    images: Tensor
    """`[N, 3, H, W]`."""
    window: Tensor
    """1 in the patch and 0 elsewhere, `[N, 1, H, W]`; 0 everywhere in scenes without one."""


def training_scenes() -> DigitScenes:
    """What it is trained on."""
    return DigitScenes(split="train", scenes=SCENES)


def with_noise(images: Tensor, clean: float) -> PatchedScenes:
    """Each image with a patch of noise of a random size, place and grain; a share `clean` of them without one."""
    count = len(images)
    side = torch.randint(SIDES[0], SIDES[1] + 1, (count, 1))
    corner = (torch.rand(count, 2) * (SIZE - side + 1)).long()
    place = torch.arange(SIZE)
    rows, columns = ((place >= corner[:, i, None]) & (place < corner[:, i, None] + side) for i in (0, 1))
    there = (torch.rand(count) >= clean)[:, None, None]
    window = (rows[:, :, None] & columns[:, None, :] & there)[:, None].float()
    grains = [torch.rand(count, 3, SIZE // grain, SIZE // grain) for grain in (1, 2, 4)]
    noises = torch.stack([functional.interpolate(one, size=(SIZE, SIZE)) for one in grains])
    noise = noises[torch.randint(3, (count,)), torch.arange(count)]
    contrast = 0.5 + 2.5 * torch.rand(count, 1, 1, 1)
    return PatchedScenes(images + window * (((noise - 0.5) * contrast + 0.5).clamp(0, 1) - images), window)


def climbed(scenes: PatchedScenes, slope: Slope, steps: int, size: float) -> PatchedScenes:
    """Sign steps of the values in the windows, kept within [0, 1]."""
    images = scenes.images
    for _ in range(steps):
        images = (images + size * scenes.window * slope(images).sign()).clamp(0, 1)
    return PatchedScenes(images, scenes.window)


def slopes(segmenter: nn.Module, detector: nn.Module, samples: Samples, window: Tensor) -> dict[str, Slope]:
    """For each kind of adversarial patch where its goal rises; of both, scaled to equal means, the sum."""

    def against(loss_of: Callable[[Tensor], Tensor]) -> Slope:
        def slope(images: Tensor) -> Tensor:
            leaf = images.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(loss_of(leaf).sum(), leaf)
            gradient = gradient * window
            return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)

        return slope

    boxes, labels = samples.targets["boxes"], samples.targets["labels"]
    first = against(lambda images: detector(images).loss_of(boxes, labels))
    second = against(lambda images: losses_of(segmenter, PatchedScenes(images, window)))
    return {"detector": first, "segmenter": second, "both": lambda images: first(images) + second(images)}


def losses_of(segmenter: nn.Module, scenes: PatchedScenes) -> Tensor:
    """Mean binary cross-entropy of each scene's pixels, `[N]`."""
    odds = segmenter(scenes.images)
    return functional.binary_cross_entropy_with_logits(odds, scenes.window, reduction="none").mean((1, 2, 3))


def patched(
    kind: str, samples: Samples, segmenter: nn.Module, detector: nn.Module, recipe: PatchRecipe, clean: float = CLEAN
) -> PatchedScenes:
    """The samples' images with patches of a kind."""
    scenes = with_noise(samples.inputs, clean)
    if kind == "noise":
        return scenes
    slope = slopes(segmenter, detector, samples, scenes.window)[kind]
    return climbed(scenes, slope, recipe.patch_steps, recipe.step_size)


def train(recipe: PatchRecipe, data: DigitScenes, most_batches: int | None = None) -> tuple[nn.Module, list[float]]:
    """The network trained from scratch, or the first batches of that, and the mean loss of each batch."""
    detector, losses = scene_fcos().requires_grad_(False), list[float]()
    with reproducible(recipe.seed):
        model = PatchSegmenter()
        insert_batch_norm(model)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_learning_rate, total_steps=recipe.batches)
        for number, index in zip(range(recipe.batches), _batches(len(data.sample_ids), recipe), strict=False):
            if number == most_batches:
                break
            kind = KINDS[number % len(KINDS)]
            scenes = patched(kind, data.load(index.tolist()), model.eval(), detector, recipe)
            loss = losses_of(model.train(), scenes).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    fold_batch_norm(model.eval())
    return model, losses


def _batches(count: int, recipe: PatchRecipe) -> Iterator[Tensor]:
    """Positions of scenes, all of them once before one comes again."""
    while True:
        yield from (part for part in torch.randperm(count).split(recipe.batch_size) if len(part) == recipe.batch_size)


def quality(segmenter: nn.Module, samples: Samples, recipe: PatchRecipe) -> dict[str, float]:
    """IoU of the patch pixels for each kind of patch, and the share of clean scenes' pixels taken for a patch's."""
    detector, found = scene_fcos().requires_grad_(False), dict[str, float]()
    segmenter.requires_grad_(False)
    with reproducible(seed=0):
        for kind in KINDS:
            scenes = patched(kind, samples, segmenter, detector, recipe, clean=0.0)
            seen, there = segmenter(scenes.images) > 0, scenes.window > 0
            found[kind] = round(float((seen & there).sum() / (seen | there).sum()), 4)
    return {**found, "clean": round(float((segmenter(samples.inputs) > 0).float().mean()), 4)}


def main(
    out: Annotated[Path, typer.Option(file_okay=False, writable=True, help="Folder for the file.")] = Path(),
) -> None:
    """Train the network and write it as safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    model, losses = train(RECIPE, training_scenes())
    description = {
        **asdict(RECIPE),
        "scenes": SCENES,
        "first_losses": [round(loss, 4) for loss in losses[:CHECKED_STEPS]],
        "quality": quality(model, DigitScenes(scenes=EVALUATED).load(range(EVALUATED)), RECIPE),
        "libraries": {name: version(name) for name in ("torch", "numpy", "scikit-learn", "pillow")},
    }
    # One entry, because safetensors writes several in random order and the file's bytes would differ every time.
    metadata = json.dumps(description)
    (out / "patch-segmenter.safetensors").write_bytes(save(model.state_dict(), metadata={"recipe": metadata}))
    typer.echo(metadata)


if __name__ == "__main__":
    typer.run(main)
