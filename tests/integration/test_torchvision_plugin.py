"""torchvision's datasets and classifiers: `torchvision:<name>`."""

import bz2
import re
import struct
import subprocess
import sys
from importlib import resources
from pathlib import Path

import foolbox
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from rbl_torchvision.torchvision_dataset import torchvision_dataset
from rbl_torchvision.torchvision_model import torchvision_model
from robustbench_lab.errors import UsageError


def write_idx(file: Path, array: np.ndarray) -> None:
    """The format of MNIST's files: magic number, axis lengths, bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def real_images(prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """foolbox's 20 labelled images of a dataset, uint8 `[20, H, W]`."""
    folder = resources.files(foolbox) / "data"
    files = sorted(file for file in folder.iterdir() if re.fullmatch(rf"{prefix}_\d+_\d+\.png", file.name))
    images = [np.asarray(Image.open(file.open("rb")).convert("L")) for file in files]
    labels = [int(Path(file.name).stem.split("_")[2]) for file in files]
    return np.stack(images), np.array(labels, dtype=np.uint8)


def write_mnist_like(root: Path, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """The first 5 for training, the others for the test."""
    raw = root / name / "raw"
    for prefix, chosen in (("train", slice(0, 5)), ("t10k", slice(5, None))):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images[chosen])
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels[chosen])


# ---------------------------------------------------------------- datasets


@pytest.mark.parametrize(("name", "prefix"), [("MNIST", "mnist"), ("FashionMNIST", "fashionMNIST")])
def test_local_files_are_read_by_split(tmp_path: Path, name: str, prefix: str) -> None:
    images, labels = real_images(prefix)
    write_mnist_like(tmp_path, name, images, labels)
    for split, chosen in (("train", slice(0, 5)), ("test", slice(5, None))):
        dataset = torchvision_dataset(name, root=str(tmp_path), split=split)
        samples = dataset.load(range(len(dataset.sample_ids)))
        assert torch.equal(samples.inputs, torch.from_numpy(images[chosen])[:, None].float() / 255)
        assert samples.targets.tolist() == labels[chosen].tolist()
        assert dataset.classes == 10


def test_usps_is_read_from_its_own_format(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 256))
    lines = [
        f"{label + 1} " + " ".join(f"{place + 1}:{value / 127.5 - 1:.6f}" for place, value in enumerate(row))
        for label, row in enumerate(grey)
    ]
    (tmp_path / "usps.t.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    samples = torchvision_dataset("USPS", root=str(tmp_path)).load(range(4))
    assert samples.inputs.shape == (4, 1, 16, 16)
    assert samples.targets.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(samples.inputs.flatten(1).numpy() * 255, grey, atol=1)


def test_the_revision_follows_the_contents(tmp_path: Path) -> None:
    images, labels = real_images("mnist")
    revisions = []
    for name, changed in (("one", images), ("two", images), ("three", images[::-1].copy())):
        write_mnist_like(tmp_path / name, "MNIST", changed, labels)
        revisions.append(torchvision_dataset("MNIST", root=str(tmp_path / name)).revision)
    assert revisions[0] == revisions[1] != revisions[2]


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "STL10", "SVHN", "USPS"])
def test_absent_files_are_one_line_that_says_how_to_get_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="add download=True") as caught:
        torchvision_dataset(name, root=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    images, labels = real_images("mnist")
    write_mnist_like(tmp_path, "MNIST", images, labels)
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03 cut")
    with pytest.raises(UsageError, match="torchvision:MNIST: cannot be read") as caught:
        torchvision_dataset("MNIST", root=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_unknown_dataset_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'CIFAR10'\?"):
        torchvision_dataset("CIFAR11")


# ---------------------------------------------------------------- classifiers


def images() -> torch.Tensor:
    return torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))


def test_weights_from_a_file_give_torchvisions_own_logits(tmp_path: Path) -> None:
    net = torchvision.models.resnet18(num_classes=5).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = torchvision_model("resnet18", weights=str(tmp_path / "w.safetensors"), num_classes=5)
    usual = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(model(images()), net(usual(images())))
    plain = torchvision_model(
        "resnet18", weights=str(tmp_path / "w.safetensors"), num_classes=5, mean=[0.0] * 3, std=[1.0] * 3
    )
    torch.testing.assert_close(plain(images()), net(images()))
    assert not model.training


def test_random_weights_are_used_only_when_asked_for_and_are_the_same_every_time() -> None:
    with pytest.raises(UsageError, match="torchvision:mobilenet_v2 has no weights: add weights="):
        torchvision_model("mobilenet_v2")
    first, second = (torchvision_model("mobilenet_v2", random_weights=True) for _ in range(2))
    assert torch.equal(first(images()), second(images()))


@pytest.mark.parametrize(("name", "nearest"), [("resnet_18", "resnet18"), ("fasterrcnn_resnet50_fpn", None)])
def test_a_name_that_is_no_classifier_is_refused(name: str, nearest: str | None) -> None:
    with pytest.raises(UsageError, match=f"torchvision knows no classifier '{name}'") as caught:
        torchvision_model(name, random_weights=True)
    if nearest:
        assert f"Did you mean '{nearest}'?" in str(caught.value)


def test_pretrained_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens on the discard port
    with pytest.raises(UsageError, match=r"without internet, add weights='file\.pth'") as caught:
        torchvision_model("resnet18", pretrained=True)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- listing


@pytest.mark.parametrize(
    "plugin",
    ["rbl_facenet", "rbl_files", "rbl_onnx", "rbl_timm", "rbl_torchvision", "rbl_transformers", "rbl_ultralytics"],
)
def test_listing_the_plugin_imports_neither_torch_nor_its_library(plugin: str) -> None:
    code = (
        f"import sys, {plugin} as plugin\n"
        "hooks = [getattr(plugin, name)() for name in ('rbl_models', 'rbl_datasets') if hasattr(plugin, name)]\n"
        "print(*[spec.factory for hook in hooks for spec in hook])\n"
        "assert not {'torch', 'timm', 'onnx', 'PIL', 'numpy', 'transformers', 'ultralytics'} & set(sys.modules)\n"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.strip()
