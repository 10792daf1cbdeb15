"""Networks of torchvision, transformers, segmentation-models-pytorch and ONNX: form, gradients, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from rbl_onnx.onnx_model import onnx_model
from rbl_smp.smp_model import smp_model
from rbl_torchvision.torchvision_segmenter import torchvision_segmenter
from rbl_transformers.transformers_segmenter import transformers_segmenter
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.segmentation_objectives import Untargeted

CLASSES = 4
LRASPP = "lraspp_mobilenet_v3_large"
SEGFORMER = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
    "num_labels": CLASSES,
}


def images(count: int = 2, height: int = 32, width: int = 64) -> Tensor:
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(0))


def lively(model: nn.Module) -> nn.Module:
    """Batch statistics of random weights, so that the input makes a difference at the output."""
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    for one in norms:
        one.train().momentum = 1.0
    with torch.no_grad():
        model(images(8))
    for one in norms:
        one.eval().running_var.clamp_(min=float(one.running_var.mean()))
    return model


def segformer(folder: Path) -> nn.Module:
    torch.manual_seed(0)
    SegformerForSemanticSegmentation(SegformerConfig(**SEGFORMER)).save_pretrained(folder / "segformer")
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / "segformer")
    return transformers_segmenter(str(folder / "segformer"))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.net(x)
        return made


def exported(folder: Path) -> nn.Module:
    torch.manual_seed(0)
    axes = {"x": {0: "n"}, "y": {0: "n"}}
    file = str(folder / "net.onnx")
    torch.onnx.export(
        Small().eval(), (images(1),), file, input_names=["x"], output_names=["y"], dynamic_axes=axes, dynamo=False
    )
    return onnx_model(file)


FAMILIES: dict[str, Callable[[Path], nn.Module]] = {
    "torchvision lraspp": lambda _: torchvision_segmenter(LRASPP, random_weights=True, num_classes=CLASSES),
    "torchvision fcn": lambda _: torchvision_segmenter("fcn_resnet50", random_weights=True, num_classes=CLASSES),
    "torchvision deeplab": lambda _: torchvision_segmenter(
        "deeplabv3_mobilenet_v3_large", random_weights=True, num_classes=CLASSES
    ),
    "transformers segformer": segformer,
    "smp unet": lambda _: smp_model("unet", classes=CLASSES, encoder="mobilenet_v2", random_weights=True),
    "onnx": exported,
}
TAKES_LONG = {"torchvision fcn"}
"""Its ResNet-50 keeps most of the images' size; lraspp and deeplab are loaded by the same code."""


@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=[pytest.mark.slow] if one in TAKES_LONG else []) for one in FAMILIES]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_logits_have_the_images_size_and_their_gradient_is_that_of_finite_differences(
    family: str, tmp_path: Path
) -> None:
    model = FAMILIES[family](tmp_path)
    assert not any(module.training for module in model.modules())
    model = lively(model).double()
    x = images().double()
    masks = torch.randint(0, CLASSES, (2, 32, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, CLASSES, 32, 64)
        assert torch.allclose(model(x[:1]), logits[:1])  # batch statistics are frozen

    def loss(at: Tensor) -> Tensor:
        return Untargeted().loss(None, model(at), masks).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-8  # few of the ReLUs have their kink within it
    with torch.no_grad():
        difference = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    assert abs(float(difference)) > 1e-6
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=0.01)


@pytest.mark.parametrize("second_head", [True, False])
def test_torchvisions_weights_are_loaded_with_and_without_the_head_for_training(
    second_head: bool, tmp_path: Path
) -> None:
    import torchvision

    torch.manual_seed(0)
    build = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large
    net = build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=second_head).eval()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    weights = str(tmp_path / "net.safetensors")
    model = torchvision_segmenter("deeplabv3_mobilenet_v3_large", weights=weights, num_classes=CLASSES)
    x = images()
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        assert torch.allclose(model(x), net((x - mean) / std)["out"], atol=1e-6)


def test_segformers_maps_are_those_of_the_librarys_own_post_processing(tmp_path: Path) -> None:
    model = segformer(tmp_path)
    processor = SegformerImageProcessor.from_pretrained(tmp_path / "segformer")
    net = SegformerForSemanticSegmentation.from_pretrained(tmp_path / "segformer").eval()
    x = (images() * 255).round() / 255
    given = processor(images=[(one * 255).byte() for one in x], return_tensors="pt")
    with torch.no_grad():
        theirs = processor.post_process_semantic_segmentation(net(**given), target_sizes=[(32, 64)] * 2)
        agree = (model(x).argmax(1) == torch.stack(theirs)).float().mean()
    assert float(agree) > 0.99


def test_outputs_can_be_chosen_as_the_datasets_classes(tmp_path: Path) -> None:
    whole = segformer(tmp_path)
    some = transformers_segmenter(str(tmp_path / "segformer"), labels=[2, 0])
    with torch.no_grad():
        assert torch.equal(some(images()), whole(images())[:, [2, 0]])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torchvision_segmenter("fcn_resnet5", random_weights=True), "Did you mean 'fcn_resnet50'"),
        (lambda: torchvision_segmenter("resnet18", random_weights=True), "knows no segmentation network 'resnet18'"),
        (lambda: torchvision_segmenter(LRASPP), "has no weights"),
        (lambda: smp_model("unett", classes=2, random_weights=True), "Did you mean 'unet'"),
        (lambda: smp_model("unet", classes=2), "add either weights="),
        (lambda: smp_model("unet", classes=2, encoder="none", random_weights=True), "cannot make it"),
        (lambda: transformers_segmenter("./nowhere"), "there is no folder"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        make()
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
