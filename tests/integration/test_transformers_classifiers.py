"""Image classifiers of transformers: `transformers:<folder>`, against the library's own preparation and logits."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

import robustbench_lab
from rbl_transformers.transformers_classifier import transformers_classifier
from robustbench_lab.catalog.component_syntax import parse_component
from robustbench_lab.errors import UsageError
from robustbench_lab.pipeline import open_catalog

NAMES = ("cat", "dog", "horse")
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
VIT = {**LAYERS, "image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
MOBILEVIT = {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32], "num_attention_heads": 2}
SQUARE = {"size": {"height": 32, "width": 32}}
EDGE = {"size": {"shortest_edge": 32}}
CROPPED = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}

FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ViT": ("ViT", VIT, {**SQUARE, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}),
    "MobileViT": ("MobileViT", {**MOBILEVIT, "image_size": 32}, CROPPED),  # takes blue first
    "ResNet": ("ConvNext", {"embedding_size": 8, **STAGES, "layer_type": "basic"}, EDGE),
    "Swin": ("ViT", SWIN, SQUARE),
    "ConvNext": ("ConvNext", STAGES, EDGE),
    "Beit": ("Beit", VIT, {**SQUARE, "do_center_crop": False}),
    "EfficientNet": ("EfficientNet", {"hidden_dim": 320, "width_coefficient": 0.25, "depth_coefficient": 0.25}, SQUARE),
    "Dinov2": ("Bit", {**VIT, "hidden_size": 16}, CROPPED),
    "Levit": ("Levit", {"image_size": 32, "hidden_sizes": [16, 16, 16], "key_dim": [4, 4, 4]}, CROPPED),
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny random classifier, as `save_pretrained` writes it."""
    root = tmp_path_factory.mktemp("classifiers")

    def made(family: str) -> str:
        folder = root / family
        if not folder.exists():
            processor, config, prepared = FAMILIES[family]
            torch.manual_seed(0)
            config = {**config, "id2label": dict(enumerate(NAMES)), "label2id": {}}
            made_config = getattr(transformers, f"{family}Config")(**config)
            net = getattr(transformers, f"{family}ForImageClassification")(made_config)
            with torch.no_grad():  # initial weights of the last layer are nearly 0
                for weight in net.parameters():
                    weight += 0.1 * torch.randn(weight.shape)
            net.save_pretrained(folder)
            getattr(transformers, f"{processor}ImageProcessor")(**prepared).save_pretrained(folder)
        return str(folder)

    return made


def images(side: int = 32, count: int = 3) -> Tensor:
    """uint8."""
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def own_logits(folder: str, x: Tensor, **how: Any) -> Tensor:
    """As the library itself goes from images to logits."""
    net: Any = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    prepared = transformers.AutoImageProcessor.from_pretrained(folder)(list(x), return_tensors="pt", **how)
    with torch.no_grad():
        logits: Tensor = net(**prepared).logits
    return logits


QUICK = ("ViT", "MobileViT", "ResNet", "EfficientNet")


@pytest.mark.parametrize(
    "family", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in FAMILIES]
)
def test_logits_are_those_of_the_library_behind_its_own_preparation(
    family: str, folder_of: Callable[[str], str]
) -> None:
    folder = folder_of(family)
    model = transformers_classifier(folder)
    expected = own_logits(folder, images(), do_resize=False, do_center_crop=False)
    with torch.no_grad():
        torch.testing.assert_close(model(images().float() / 255), expected, rtol=1e-4, atol=1e-5)
    assert model.class_names == NAMES
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("family", ["ViT", "MobileViT", "ConvNext"])
def test_images_of_another_size_are_resized_inside_where_that_is_asked_for(
    family: str, folder_of: Callable[[str], str]
) -> None:
    folder, other = folder_of(family), images(side=48)
    with torch.no_grad():
        found = transformers_classifier(folder, resize=True)(other.float() / 255)
    # The library rounds resized images to whole numbers where they come as such.
    torch.testing.assert_close(found, own_logits(folder, other.float()), rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match="takes images of 32 x 32, not 48 x 48"):
        transformers_classifier(folder)(other.float() / 255)


@pytest.mark.parametrize(("family", "resize"), [("ViT", False), ("ViT", True)])
def test_the_gradient_is_that_of_finite_differences(family: str, resize: bool, folder_of: Callable[[str], str]) -> None:
    model = transformers_classifier(folder_of(family), resize=resize).double().requires_grad_(False)
    x = (images(side=40 if resize else 32, count=1).double() / 255).requires_grad_()
    direction = torch.randn(x.shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(model(x)[0, 0], x)
    with torch.no_grad():
        above, below = (model(x + sign * 1e-5 * direction)[0, 0] for sign in (1, -1))
    assert float((gradient * direction).sum()) == pytest.approx(float(above - below) / 2e-5, rel=1e-3)


def test_classes_are_chosen_by_name_or_by_number(folder_of: Callable[[str], str]) -> None:
    folder, x = folder_of("ViT"), images().float() / 255
    every = transformers_classifier(folder)(x)
    for labels in (["horse", "cat"], [2, 0]):
        model = transformers_classifier(folder, labels=labels)
        assert torch.equal(model(x), every[:, [2, 0]])
        assert model.class_names == ("horse", "cat")


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["horses"], "Did you mean 'horse'?"), ([3], "labels has 3, but its outputs are 0..2"), ([1, 1], "twice")],
)
def test_classes_that_it_does_not_have_are_one_line(labels: Any, message: str, folder_of: Callable[[str], str]) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        transformers_classifier(folder_of("ViT"), labels=labels)


def test_a_folder_of_another_kind_is_refused(folder_of: Callable[[str], str], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder_of("ViT"), tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "detr"}))
    with pytest.raises(UsageError, match="is a 'detr', which is not offered for classification"):
        transformers_classifier(str(copy))
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(UsageError, match=r"the folder has no preprocessor_config\.json"):
        transformers_classifier(str(copy))


def test_the_weights_are_part_of_the_identity_and_their_place_is_not(
    folder_of: Callable[[str], str], tmp_path: Path
) -> None:
    folder = folder_of("ViT")
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    catalog = open_catalog()

    def identity(where: Any) -> str:
        return catalog.resolve("models", parse_component(f"transformers:{where}"), task="classification").identity

    assert identity(folder) == identity(moved)
    (moved / "model.safetensors").write_bytes((moved / "model.safetensors").read_bytes()[:-1] + b"!")
    assert identity(folder) != identity(moved)


def test_it_is_evaluated_like_any_classifier(folder_of: Callable[[str], str], tmp_path: Path) -> None:
    result = robustbench_lab.evaluate(
        f"transformers:{folder_of('ViT')}",
        ((images(count=6) / 255).numpy(), np.arange(6) % 3),
        attacks=["pgd(steps=3)"],
        norm="linf",
        eps="8/255",
        devices=["cpu"],
        database=str(tmp_path / "results.db"),
    )
    (record,) = result.records
    assert (record.status, record.reason) == ("ok", None)
