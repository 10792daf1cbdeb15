"""torchvision's own weights, from its cache and from a local copy: what it does for them alone is done."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from rbl_torchvision import networks
from rbl_torchvision.torchvision_detector import torchvision_detector
from rbl_torchvision.torchvision_model import torchvision_model
from rbl_torchvision.torchvision_segmenter import torchvision_segmenter
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.class_numbers import Numbering
from robustbench_lab.provenance import file_sha256


def file_name(name: str) -> str:
    return Path(get_model_weights(name).DEFAULT.url).name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torchvision's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "torch" / "hub" / "checkpoints"


def write_as_published(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Path:
    """Random weights under the name, and in the form, in which torchvision publishes its own; the hash is believed."""
    torch.manual_seed(0)
    net = get_model(name, weights=None, **given)
    for key, buffer in net.named_buffers():
        if key.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    for parameter in net.parameters():
        if name.startswith("ssdlite") and parameter.ndim == 4:  # its own random weights give every box the same score
            nn.init.kaiming_normal_(parameter)
    state = net.state_dict()
    if name.startswith("densenet"):  # from before tensors had these names, and modules versions
        older = ((re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", key), state[key]) for key in state)
        state = {key: value for key, value in older if not key.endswith("num_batches_tracked")}
    file = folder / file_name(name)
    torch.save(state, file)
    begins = file_name(name).rpartition("-")[2].partition(".")[0]
    monkeypatch.setattr(networks, "file_sha256", lambda path: begins if Path(path) == file else file_sha256(path))
    return file


def normalised(images: Tensor, name: str) -> Tensor:
    usual = get_model_weights(name).DEFAULT.transforms()
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (usual.mean, usual.std))
    return (images - mean) / std


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("googlenet", {"init_weights": False}),  # normalises once more, and has heads that are left off
        ("mnasnet0_5", {}),  # asks for the version of its file
        ("densenet121", {}),  # its tensors have older names
        ("resnet18", {}),
    ],
)
def test_classifiers_are_torchvisions_own(
    name: str, given: dict[str, Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = write_as_published(name, home, monkeypatch, **given)
    own = get_model(name, weights="DEFAULT").eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = own(normalised(images, name))
        assert torch.equal(torchvision_model(name, pretrained=True)(images), expected)
        copy = cached.rename(tmp_path / cached.name)
        monkeypatch.setattr(networks, "file_sha256", lambda _: cached.name.rpartition("-")[2].partition(".")[0])
        assert torch.equal(torchvision_model(name, weights=str(copy))(images), expected)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "labels", "sides"),
    [
        ("retinanet_resnet50_fpn", "from-0", {"min_size": 96, "max_size": 128}),  # normalises without epsilon
        ("ssdlite320_mobilenet_v3_large", "from-1", {}),
    ],
)
def test_detectors_are_torchvisions_own(
    name: str, labels: Numbering, sides: dict[str, int], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = write_as_published(name, home, monkeypatch, weights_backbone=None)
    own = get_model(name, weights="DEFAULT", score_thresh=0.0, **sides).eval()
    images = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        (expected,) = own([images[0]])
        count = len(expected["scores"])
        _, place, often = expected["scores"].unique(return_inverse=True, return_counts=True)
        alone = (often == 1)[place]  # those of equal scores come in any order
        assert int(alone.sum()) > 10
        for given in ({"pretrained": True}, {"weights": str(cached)}):
            made = torchvision_detector(name, labels=labels, score_threshold=0.0, **sides, **given)
            found = made(images).detections
            assert torch.equal(found["scores"][0, :count], expected["scores"])
            assert torch.equal(found["boxes"][0, :count][alone], expected["boxes"][alone])


def test_segmentation_networks_are_torchvisions_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "lraspp_mobilenet_v3_large"
    cached = write_as_published(name, home, monkeypatch, weights_backbone=None)
    own = get_model(name, weights="DEFAULT").eval()
    images = torch.rand(2, 3, 65, 65)
    with torch.inference_mode():
        expected = own(normalised(images, name))["out"]
        for given in ({"pretrained": True}, {"weights": str(cached)}):
            assert torch.equal(torchvision_segmenter(name, **given)(images), expected)


def test_other_files_are_no_copies(tmp_path: Path) -> None:
    net = torchvision.models.resnet18(num_classes=7)
    torch.save(net.state_dict(), tmp_path / file_name("resnet18"))  # the name alone says nothing
    assert networks.published_copy("resnet18", str(tmp_path / file_name("resnet18"))) is None
    made = torchvision_model("resnet18", weights=str(tmp_path / file_name("resnet18")), num_classes=7)
    assert made(torch.rand(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("wrapped", [False, True])
def test_modules_learn_the_version_of_a_users_own_file(tmp_path: Path, wrapped: bool) -> None:
    net = torchvision.models.mnasnet0_5(num_classes=7).eval()
    torch.save((nn.DataParallel(net) if wrapped else net).state_dict(), tmp_path / "own.pth")
    made = torchvision_model("mnasnet0_5", weights=str(tmp_path / "own.pth"), num_classes=7)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(made(images), net(normalised(images, "mnasnet0_5")))


class _Runs:
    """A pickle that creates a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def test_a_file_in_the_cache_runs_nothing(home: Path, tmp_path: Path) -> None:
    torch.save({"weight": _Runs(tmp_path / "was-here")}, home / file_name("resnet18"))
    with pytest.raises(UsageError, match="torchvision cannot make it"):
        torchvision_model("resnet18", pretrained=True)
    assert not (tmp_path / "was-here").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
