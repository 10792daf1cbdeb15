"""What the contestants of a benchmark attack: a model, and the samples that it gets right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rbl_onnx.onnx_model import onnx_model
from rbl_reference.digits import Digits
from rbl_reference.digits_cnn import digits_cnn, digits_cnn_at
from rbl_timm.timm_model import timm_model
from robustbench_lab.passes.pass_counter import PassCounter
from robustbench_lab.passes.prediction import predict_in_batches

SHARED = Path(__file__).resolve().parents[2] / "shared"
TRAINED = Path(__file__).resolve().parent / "models"
"""Where train_resnet18.py writes."""
CIFAR = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2471, 0.2435, 0.2616]}
KW = {"mean": [0.485, 0.456, 0.406], "std": [0.225, 0.225, 0.225]}


@dataclass(frozen=True)
class Case:
    """What every contestant gets."""

    model: PassCounter
    inputs: Tensor
    """`[N, C, H, W]`, samples that the model gets right."""
    labels: Tensor
    samples: int
    """All samples looked at, the wrong ones included."""
    norm: str
    eps: float
    batch_size: int

    @property
    def device(self) -> torch.device:
        return self.inputs.device


class MissingError(Exception):
    """A model or its data is not there."""


def load_case(model: str, samples: int, norm: str, eps: float, batch_size: int, device: torch.device) -> Case:
    """One of `MODELS` on its data. Raises MissingError."""
    net, inputs, labels = MODELS[model](samples)
    net = net.to(device).eval().requires_grad_(False)
    inputs, labels = inputs.to(device), labels.to(device)
    right = predict_in_batches(net, inputs, 256).argmax(1) == labels
    counted = PassCounter(net).eval()
    return Case(counted, inputs[right].contiguous(), labels[right], len(labels), norm, eps, batch_size)


Loaded = tuple[nn.Module, Tensor, Tensor]


def _onnx(file: str, norm: dict[str, list[float]]) -> Callable[[int], Loaded]:
    return lambda samples: (onnx_model(path=str(_there(SHARED / "models" / file)), **norm), *_cifar(samples))


def _resnet18(file: str) -> Callable[[int], Loaded]:
    def load(samples: int) -> Loaded:
        return timm_model("resnet18", weights=str(_there(TRAINED / file)), num_classes=10), *_cifar(samples)

    return load


def _mnist(samples: int) -> Loaded:
    net = onnx_model(path=str(_there(SHARED / "models/mnist_fc_256x4.onnx")), input_shape=[784, 1])
    with np.load(_there(SHARED / "data/mnist_test_10k.npz")) as data:
        images = torch.from_numpy(data["images"][:samples, None]).float().div(255)
        return net, images, torch.from_numpy(data["labels"][:samples]).long()


def _digits(make: Callable[[], nn.Module]) -> Callable[[int], Loaded]:
    def load(samples: int) -> Loaded:
        data = Digits()
        chosen = data.load(range(min(samples, len(data.sample_ids))))
        return make(), chosen.inputs, chosen.targets

    return load


def _cifar(samples: int) -> tuple[Tensor, Tensor]:
    with np.load(_there(SHARED / "data/cifar10_test_5k.npz")) as data:
        images = torch.from_numpy(data["images"][:samples]).permute(0, 3, 1, 2).float().div(255).contiguous()
        return images, torch.from_numpy(data["labels"][:samples]).long()


def _there(path: Path) -> Path:
    if not path.is_file():
        raise MissingError(f"{path.name} is not there")
    return path


MODELS: dict[str, Callable[[int], Loaded]] = {
    "resnet_2b": _onnx("cifar10_resnet_2b.onnx", CIFAR),
    "wide_kw": _onnx("cifar10_wide_kw.onnx", KW),
    "base_kw": _onnx("cifar10_base_kw.onnx", KW),
    "resnet18-plain": _resnet18("resnet18-plain.safetensors"),
    "resnet18-at": _resnet18("resnet18-at.safetensors"),
    "mnist_fc": _mnist,
    "digits-cnn": _digits(digits_cnn),
    "digits-cnn-at": _digits(digits_cnn_at),
}
