"""Train the ResNet-18 that benchmarks/attacks.py attacks: timm's, on CIFAR-10 at 32 x 32, plainly or adversarially.

    python benchmarks/train_resnet18.py --data ../shared/data/cifar10_train_50k_jpeg.npz --out benchmarks/models

writes resnet18-plain.safetensors and resnet18-at.safetensors, for `timm:resnet18(weights=..., num_classes=10)`.
The adversarial one is trained with one random-start FGSM step (Wong et al. 2020, arXiv 2001.03994). A few
epochs are enough for speed work; on a GPU give more.
"""

from __future__ import annotations

import argparse
import io
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from rbl_timm.timm_model import timm_model

BATCH_SIZE = 128
EPS = 8 / 255
ATTACK_STEP = 1.25 * EPS
PEAK_LEARNING_RATE = 0.1


def read_images(path: Path) -> tuple[Tensor, Tensor]:
    """JPEG bytes to images uint8 `[N, 3, 32, 32]` and classes int64 `[N]`."""
    stored = np.load(path)
    data, offsets = stored["jpeg"].tobytes(), stored["offsets"].tolist()
    images = [np.asarray(Image.open(io.BytesIO(data[start:end])).convert("RGB")) for start, end in pairwise(offsets)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(stored["labels"]).long()


def augmented(images: Tensor) -> Tensor:
    """Random shifts by up to 4 pixels (one a batch) and mirror images, as floats in 0..1."""
    x = images.float() / 255
    mirrored = torch.rand(len(x), device=x.device) < 0.5
    x[mirrored] = x[mirrored].flip(3)
    down, right = torch.randint(0, 9, (2,)).tolist()
    return functional.pad(x, (4, 4, 4, 4))[:, :, down : down + 32, right : right + 32]


def fgsm(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """One step from a random start, within EPS."""
    delta = (torch.rand_like(x) * 2 - 1) * EPS
    start = (x + delta).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(start), labels), start)
    moved = start.detach() + ATTACK_STEP * gradient.sign()
    return (x + (moved - x).clamp(-EPS, EPS)).clamp(0, 1)


def train(images: Tensor, labels: Tensor, epochs: int, *, adversarial: bool, device: torch.device) -> nn.Module:
    """SGD with momentum under a one-cycle learning rate."""
    torch.manual_seed(0)
    model = timm_model("resnet18", num_classes=10, random_weights=True).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    began = time.perf_counter()
    for epoch in range(epochs):
        losses = []
        for rows in torch.randperm(len(images))[: steps // epochs * BATCH_SIZE].split(BATCH_SIZE):
            x, y = augmented(images[rows].to(device)), labels[rows].to(device)
            if adversarial:
                x = fgsm(model.eval(), x, y)
            loss = functional.cross_entropy(model.train()(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(
            f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.3f}, {time.perf_counter() - began:.0f} s", flush=True
        )
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    images, labels = read_images(asked.data)
    for name, adversarial in (("resnet18-plain", False), ("resnet18-at", True)):
        print(name)
        model = train(images, labels, asked.epochs, adversarial=adversarial, device=torch.device(asked.device))
        save_file(model.net.state_dict(), asked.out / f"{name}.safetensors")


if __name__ == "__main__":
    main()
