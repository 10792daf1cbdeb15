"""Detectors of transformers: `transformers:<folder>`, against the library's own preparation, loss and detections."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from torch import Tensor, nn

from rbl_transformers.transformers_detector import transformers_detector
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.right_gradients import right_gradients
from robustbench_lab.tasks.detector_output import padded
from robustbench_lab.testing.detector_contract import check_detector

BOXES = torch.tensor([[[4.0, 4, 30, 30], [10, 10, 50, 40]], [[0.0, 0, 20, 20], [0, 0, 0, 0]]])
LABELS = torch.tensor([[0, 2], [1, -1]])

BACKBONE = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 6,
    "num_labels": 3,
    "use_timm_backbone": False,
    "backbone_config": {"model_type": "resnet", "out_features": ["stage2", "stage3", "stage4"], **BACKBONE},
}
ONE_LEVEL = {**DETR, "backbone_config": {"model_type": "resnet", "out_features": ["stage4"], **BACKBONE}}
RT_DETR = {
    "d_model": 16,
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [8, 16, 16],
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_in_channels": [16, 16, 16],
    "decoder_ffn_dim": 16,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "num_queries": 6,
    "num_labels": 3,
    "backbone_config": {"model_type": "rt_detr_resnet", "out_features": ["stage2", "stage3", "stage4"], **BACKBONE},
}
YOLOS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": [32, 32],
    "patch_size": 8,
    "num_detection_tokens": 5,
    "num_labels": 3,
}
ASPECT = {"size": {"shortest_edge": 32, "longest_edge": 60}}
SQUARE = {"size": {"height": 64, "width": 64}}

FAMILIES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "detr": ("Detr", "Detr", ONE_LEVEL, ASPECT),
    "detr with auxiliary losses": ("Detr", "Detr", {**ONE_LEVEL, "auxiliary_loss": True}, ASPECT),
    "conditional detr": ("ConditionalDetr", "ConditionalDetr", {**ONE_LEVEL, "auxiliary_loss": True}, ASPECT),
    "deformable detr": (
        "DeformableDetr",
        "DeformableDetr",
        {**DETR, "num_feature_levels": 3, "auxiliary_loss": True, "with_box_refine": True},
        ASPECT,
    ),
    "yolos": ("Yolos", "Yolos", YOLOS, ASPECT),
    "rt-detr": ("RTDetr", "RTDetr", RT_DETR, SQUARE),
    "rt-detr v2": ("RTDetrV2", "RTDetr", RT_DETR, SQUARE),
}


def images() -> Tensor:
    return torch.rand((2, 3, 48, 64), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny random detector, as `save_pretrained` writes it."""
    root = tmp_path_factory.mktemp("transformers")

    def made(family: str) -> str:
        folder = root / family.replace(" ", "-")
        if not folder.exists():
            kind, processor, config, size = FAMILIES[family]
            torch.manual_seed(0)
            made_config = getattr(transformers, f"{kind}Config")(**config)
            net = getattr(transformers, f"{kind}ForObjectDetection")(made_config)
            with torch.no_grad():  # initial weights make many queries alike
                for weight in net.parameters():
                    weight += 0.2 * torch.randn(weight.shape)
            net.save_pretrained(folder)
            getattr(transformers, f"{processor}ImageProcessor")(**size).save_pretrained(folder)
        return str(folder)

    return made


@pytest.fixture
def copy_of(folder_of: Callable[[str], str], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of it that a test may change."""
    return lambda family: Path(shutil.copytree(folder_of(family), tmp_path / "copy"))


def own(folder: str) -> Any:
    """The model as the library loads it."""
    return transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()


def own_targets(index: int) -> dict[str, Tensor]:
    there = LABELS[index] >= 0
    box = BOXES[index, there].to(torch.get_default_dtype())
    centres = torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], dim=1)
    return {"class_labels": LABELS[index, there], "boxes": centres / torch.tensor([64.0, 48, 64, 48])}


@pytest.fixture
def float64() -> Iterator[None]:
    """The type of the constants that losses make."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def without_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are stopped on purpose in some models, which finite differences do not know of: not any more."""

    def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | float = 1.0, *, reduction: str) -> Tensor:
        assert reduction == "none"
        return weight * (nn.functional.softplus(logits) - logits * target)

    monkeypatch.setattr(Tensor, "detach", lambda tensor: tensor)
    # torch's own refuses a weight with gradient.
    monkeypatch.setattr(nn.functional, "binary_cross_entropy_with_logits", cross_entropy)


# ---------------------------------------------------------------- what an adapter must keep to


@pytest.mark.parametrize("family", FAMILIES)
def test_it_keeps_to_the_contract_of_detectors(
    family: str, folder_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformers_detector(folder_of(family), score_threshold=0.0)
    if "rt-detr" in family or "deformable" in family:
        without_stops(monkeypatch)
    assert check_detector(model, images(), BOXES, LABELS) == []


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_the_librarys_own_of_one_image(family: str, folder_of: Callable[[str], str]) -> None:
    model, net = transformers_detector(folder_of(family)).double(), right_gradients(own(folder_of(family)).double())
    x = images().double().requires_grad_()
    losses = model(x).loss_of(BOXES, LABELS)
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    for index in range(2):
        one = images().double()[index : index + 1].requires_grad_()
        loss = net(pixel_values=model.preparation(one), labels=[own_targets(index)]).loss
        torch.testing.assert_close(losses[index], loss, rtol=1e-4, atol=1e-5)
        (wanted,) = torch.autograd.grad(loss, one)
        assert wanted.any()
        torch.testing.assert_close(gradient[index], wanted[0], rtol=0, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_preparation_and_detections_are_the_processors_own(family: str, folder_of: Callable[[str], str]) -> None:
    folder = folder_of(family)
    model, net = transformers_detector(folder, score_threshold=0.1), own(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=list(images()), do_rescale=False, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(model.preparation(images()), pixels)
    with torch.no_grad():
        outputs = net(pixel_values=pixels)
        found = processor.post_process_object_detection(outputs, threshold=0.1, target_sizes=[(48, 64)] * 2)
        made = model(images())
    wanted = padded([(one["boxes"], one["scores"], one["labels"]) for one in found])
    for part, values in wanted.items():
        torch.testing.assert_close(made.detections[part], values, rtol=1e-4, atol=1e-4)
    assert (wanted["scores"] > 0).any()


@pytest.mark.parametrize("family", ["detr", "rt-detr"])
def test_the_score_of_a_detection_is_that_of_a_candidate(family: str, folder_of: Callable[[str], str]) -> None:
    with torch.no_grad():
        output = transformers_detector(folder_of(family), score_threshold=0.0)(images())
    assert output.logits is not None
    assert output.candidates is not None
    best, label = output.logits.sigmoid().flatten(1).max(1)
    torch.testing.assert_close(output.detections["scores"][:, 0], best)
    assert torch.equal(output.detections["labels"][:, 0], label % 3)
    chosen = output.candidates[torch.arange(2), label // 3]
    torch.testing.assert_close(output.detections["boxes"][:, 0], chosen, rtol=1e-4, atol=1e-3)


def test_mixed_precision_keeps_boxes_and_losses_in_float32(folder_of: Callable[[str], str]) -> None:
    for family in ("detr", "rt-detr"):
        x = images().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = transformers_detector(folder_of(family))(x)
        assert output.candidates is not None
        loss = output.loss_of(BOXES, LABELS)
        assert loss.dtype == output.candidates.dtype == torch.float32
        assert torch.autograd.grad(loss.sum(), x)[0].isfinite().all()


# ---------------------------------------------------------------- class numbers


def test_outputs_that_no_category_has_are_left_out(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("detr")
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "N/A", "1": "person", "2": "bicycle"}, "label2id": {}}
    (folder / "config.json").write_text(json.dumps(config))
    model = transformers_detector(str(folder), score_threshold=0.0)
    assert model.classes.numbers.tolist() == [1, 2]
    assert model(images()).logits.shape[-1] == 2
    assert transformers_detector(str(folder), labels=[2]).classes.numbers.tolist() == [2]
    with pytest.raises(UsageError, match=r"labels has 3, but its outputs are 0\.\.2"):
        transformers_detector(str(folder), labels=[3])
    with pytest.raises(UsageError, match="label 2 is not among the detector's 2 classes"):
        model(images()).loss_of(BOXES, LABELS)


# ---------------------------------------------------------------- what cannot be loaded


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_folder_without_one_of_its_files_says_which(missing: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("yolos")
    (folder / missing).unlink()
    with pytest.raises(UsageError, match=f"the folder has no {missing}"):
        transformers_detector(str(folder))


def test_weights_that_are_pickled_are_not_read(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("yolos")
    torch.save(own(str(folder)).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"the folder has no model\.safetensors"):
        transformers_detector(str(folder))


def test_code_in_a_folder_is_not_run(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("yolos")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForObjectDetection": "mine.Net"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    with pytest.raises(UsageError, match="transformers cannot load it") as caught:
        transformers_detector(str(folder))
    assert "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


def test_weights_that_lack_a_tensor_are_refused(copy_of: Callable[[str], Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of("yolos")
    tensors = load_file(folder / "model.safetensors")
    del tensors["class_labels_classifier.layers.0.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"its weights lack 1 tensors of the model: class_labels_classifier"):
        transformers_detector(str(folder))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    transformers.ViTForImageClassification(
        transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path)
    transformers.ViTImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="is a 'vit'; offered are conditional_detr, deformable_detr, detr"):
        transformers_detector(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "params", "problem"),
    [
        ("/nowhere/detr", {}, "there is no folder '/nowhere/detr'"),
        ("detr@main", {}, "neither a folder nor the name of a repository"),
        ("org/name", {"score_threshold": 2.0}, "score_threshold must be between 0 and 1, not 2"),
    ],
)
def test_a_name_or_setting_that_cannot_be_is_one_line(name: str, params: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        transformers_detector(name, **params)


def test_a_folder_has_no_revision(folder_of: Callable[[str], str]) -> None:
    with pytest.raises(UsageError, match="a folder has no revisions"):
        transformers_detector(folder_of("yolos"), revision="main")


def test_a_repository_that_cannot_be_reached_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="without internet, name a local folder") as caught:
        transformers_detector("nobody-at-all/no-such-model")
    assert "\n" not in str(caught.value)
