"""The bundled U-Nets: what they are worth, and that their weights are those of the recipe."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from rbl_reference import SCENES_EPS, rbl_datasets, rbl_models
from rbl_reference.scene_masks import CLASSES, SceneMasks
from rbl_reference.scene_training import CHECKED_STEPS, fold_batch_norm, insert_batch_norm, pgd, train
from rbl_reference.scene_unet import SceneUNet, scene_unet, scene_unet_at
from rbl_reference.scenes import SIZE, DigitScenes, paint, read_material
from rbl_reference.train_scene_unet import (
    EVALUATED,
    RECIPES,
    SCENES,
    losses_of,
    quality,
    training_scenes,
)
from robustbench_lab.contracts import Samples
from robustbench_lab.errors import UsageError

BUNDLED = {"scene-unet": scene_unet, "scene-unet-at": scene_unet_at}


@pytest.fixture(scope="module")
def scenes() -> Samples:
    return SceneMasks(scenes=20).load(range(20))


# A change of either value changes every stored result on scene-masks: raise the spec's version with it.
@pytest.mark.parametrize(
    ("split", "revision"),
    [
        ("test", "953115c1a7cd346db6fc7267dd5c45dc0fece08afb7734db1b2e535068319a9e"),
        ("train", "04cf4ec3347509de2207fd16285beb700826f9fb4d9090f02023d8b099038e3b"),
    ],
)
def test_the_first_20_scenes_of_each_split_are_these_and_no_others(split: Any, revision: str) -> None:
    assert SceneMasks(split=split, scenes=20).revision == revision


def test_images_are_those_of_digit_scenes_and_masks_lie_in_the_boxes(scenes: Samples) -> None:
    boxed = DigitScenes(scenes=20).load(range(20))
    assert torch.equal(boxed.inputs, scenes.inputs)
    assert (scenes.targets.shape, scenes.targets.dtype) == ((20, SIZE, SIZE), torch.uint8)
    for mask, boxes, labels in zip(scenes.targets, boxed.targets["boxes"], boxed.targets["labels"], strict=True):
        left = mask.clone()
        for (x0, y0, x1, y1), label in zip(boxes.int().tolist(), labels.tolist(), strict=True):
            inside = mask[y0:y1, x0:x1]
            if label >= 0:
                assert set(inside.unique().tolist()) == {0, 1 + label}
                left[y0:y1, x0:x1] = 0
        assert not bool(left.any())


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(UsageError, match="Did you mean 'train'"):
        SceneMasks(split="tain")  # type: ignore[arg-type]


def test_clean_scenes_are_segmented_and_under_pgd_the_plain_network_loses_more_than_the_other(scenes: Samples) -> None:
    left = {}
    for name, factory in BUNDLED.items():
        model = factory()
        torch.manual_seed(0)
        attacked = pgd(model, scenes.inputs, scenes.targets, losses_of, SCENES_EPS, 10, SCENES_EPS / 4)
        clean = quality(model, scenes.inputs, scenes.targets)["miou"]
        left[name] = quality(model, attacked, scenes.targets)["miou"] / clean
        assert clean > (0.7 if name == "scene-unet" else 0.4)
    assert left["scene-unet"] < 0.3
    assert left["scene-unet-at"] > 2 * left["scene-unet"]


def test_batch_normalisation_is_folded_without_a_change_of_the_function() -> None:
    torch.manual_seed(0)
    model = SceneUNet()
    insert_batch_norm(model)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(4, 3, SIZE, SIZE))
        images = torch.rand(2, 3, SIZE, SIZE)
        before = model.eval()(images)
        fold_batch_norm(model)
        after = model(images)
    assert before.shape == (2, CLASSES, SIZE, SIZE)
    assert list(model.state_dict()) == list(SceneUNet().state_dict())
    assert torch.allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_networks_spec_names_its_factory_and_files_that_ship(name: str) -> None:
    (spec,) = (one for one in rbl_models() if one.name == name)
    (dataset,) = (one for one in rbl_datasets() if one.name == spec.reference_dataset)
    assert resolve_name(str(spec.factory)) is BUNDLED[name]
    assert resolve_name(str(dataset.factory)) is SceneMasks
    assert (spec.tasks, spec.fits, spec.on_request) == (dataset.tasks, (dataset.family,), True)
    for one in spec.files:
        package, _, path = one.partition(":")
        assert (files(package) / path).is_file()


def weights_of(name: str) -> Path:
    return Path(str(files("rbl_reference") / "weights" / f"{name}.safetensors"))


def recorded(name: str) -> dict[str, Any]:
    with safe_open(weights_of(name), framework="pt") as weights:
        description: dict[str, Any] = json.loads(weights.metadata()["recipe"])
    return description


@pytest.mark.parametrize("name", RECIPES)
def test_the_weights_are_small_and_carry_the_recipe_as_it_is_and_figures_measured_again(name: str) -> None:
    assert weights_of(name).stat().st_size < 500_000
    recipe = {**asdict(RECIPES[name]), "scenes": SCENES}
    assert {key: recorded(name)[key] for key in recipe} == recipe
    samples = SceneMasks(scenes=EVALUATED).load(range(EVALUATED))
    assert quality(BUNDLED[name](), samples.inputs, samples.targets) == pytest.approx(recorded(name)["clean"], abs=0.01)


class PaintedOnDemand:
    """The training scenes; only those that a recipe asks for are painted."""

    sample_ids = range(SCENES)

    def __init__(self) -> None:
        self.material = read_material("train")

    def load(self, indices: Sequence[int]) -> Samples:
        painted = [paint(f"digit-scenes/train/{index:05d}", *self.material) for index in indices]
        images, masks = (torch.from_numpy(np.stack([scene[part] for scene in painted])) for part in (0, 3))
        return Samples(images.float().div(255), masks)


def test_scenes_painted_on_demand_are_those_of_the_dataset() -> None:
    whole, some = SceneMasks(split="train", scenes=4).load([3, 1]), PaintedOnDemand().load([3, 1])
    assert torch.equal(whole.inputs, some.inputs)
    assert torch.equal(whole.targets, some.targets)


# Kernels add in another order on another CPU, and training carries the last bits on; in a few steps not far.
@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_still_begins_as_it_did(name: str) -> None:
    data: Any = PaintedOnDemand()
    losses = train(SceneUNet, losses_of, RECIPES[name], data, CHECKED_STEPS).losses
    assert losses == pytest.approx(recorded(name)["first_losses"], rel=0.01)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", RECIPES)
def test_training_again_gives_a_network_as_good_as_the_bundled_one(name: str) -> None:
    again = train(SceneUNet, losses_of, RECIPES[name], training_scenes()).model
    samples = SceneMasks(scenes=EVALUATED).load(range(EVALUATED))
    made = quality(again, samples.inputs, samples.targets)
    assert made == pytest.approx(recorded(name)["clean"], abs=0.05)
