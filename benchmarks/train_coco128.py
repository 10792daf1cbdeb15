"""Train the torchvision detector that benchmarks/detection.py attacks: SSDLite on coco128, from random weights.

    python benchmarks/train_coco128.py --data ../shared/data/coco128 --out benchmarks/models

writes coco128-ssdlite.safetensors, for `torchvision:ssdlite320_mobilenet_v3_large(weights=..., num_classes=81)`. It
learns the 128 images by heart, which says nothing about other images, but makes it a detector whose reports are right
on these: what an attack takes away from it can be measured. About 25 minutes on one CPU core. `--reports FILE` writes
what it then reports on each image, the 50 surest, such as tests/detection/coco128_reports.npz; weights that are in the
folder already are not trained again.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from rbl_detection_data.yolo import yolo
from rbl_reference.train_digits import reproducible
from rbl_torchvision.torchvision_detector import torchvision_detector
from robustbench_lab.contracts import Samples

NAME, OUTPUTS, SIDE = "ssdlite320_mobilenet_v3_large", 81, 320
EPOCHS, BATCH_SIZE, PEAK_LEARNING_RATE = 60, 8, 0.002
REPORTS = 50
WEIGHTS = "coco128-ssdlite.safetensors"
BATCH_NORM_MOMENTUM = 0.1
"""Torchvision's 0.03 for this network is meant for runs of hundreds of thousands of batches."""


def coco128(folder: Path, count: int | None = None) -> Samples:
    """All its images, or the first ones, on canvases of the network's own side."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*images (have no objects|are converted)")
        data = yolo(str(folder), size=SIDE)
    return data.load(range(len(data.sample_ids) if count is None else count))


def mirrored(images: Tensor, boxes: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """The images `[B, 3, H, W]` and boxes `[B, M, 4]`, those of `which` from left to right."""
    flipped = boxes.clone()
    flipped[..., 0], flipped[..., 2] = images.shape[-1] - boxes[..., 2], images.shape[-1] - boxes[..., 0]
    chosen = which.view(-1, 1, 1)
    return torch.where(chosen[..., None], images.flip(3), images), torch.where(chosen, flipped, boxes)


def train(samples: Samples, epochs: int = EPOCHS, seed: int = 0) -> nn.Module:
    """AdamW under a one-cycle learning rate, every image in every epoch, half of them mirrored."""
    with reproducible(seed):
        model = torchvision_detector(NAME, random_weights=True, num_classes=OUTPUTS)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = BATCH_NORM_MOMENTUM
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
        batches = -(-len(samples.inputs) // BATCH_SIZE)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=epochs * batches)
        model.to(memory_format=torch.channels_last).train()  # half the time, for this network on a CPU
        for epoch in range(epochs):
            began, summed = time.monotonic(), 0.0
            for rows in torch.randperm(len(samples.inputs)).split(BATCH_SIZE):
                boxes, labels = samples.targets["boxes"][rows], samples.targets["labels"][rows]
                images, boxes = mirrored(samples.inputs[rows], boxes, torch.rand(len(rows)) < 0.5)
                loss = model(images).loss_of(boxes, labels).mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 10.0)
                optimizer.step()
                rate.step()
                summed += float(loss.detach()) * len(rows)
            mean = summed / len(samples.inputs)
            print(f"epoch {epoch + 1}: loss {mean:.3f}, {time.monotonic() - began:.1f} s", flush=True)
    return model.to(memory_format=torch.contiguous_format).eval()


def reports(model: nn.Module, samples: Samples) -> dict[str, NDArray[Any]]:
    """`boxes` float32 `[N, 50, 4]` in pixels of the canvas, `scores` and `labels` (from 0) of the surest."""
    with torch.inference_mode():
        found = [model(part).detections for part in samples.inputs.split(BATCH_SIZE)]
    kept = {name: torch.cat([one[name][:, :REPORTS] for one in found]).numpy() for name in ("boxes", "scores")}
    return {**kept, "labels": torch.cat([one["labels"][:, :REPORTS] for one in found]).numpy().astype(np.int8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--reports", type=Path, metavar="FILE")
    asked = parser.parse_args()
    asked.out.mkdir(exist_ok=True)
    weights, samples = asked.out / WEIGHTS, coco128(asked.data)
    if not weights.is_file():
        save_file(train(samples, asked.epochs).net.state_dict(), weights)
    if asked.reports:
        model = torchvision_detector(NAME, weights=str(weights), num_classes=OUTPUTS)
        np.savez_compressed(asked.reports, **reports(model, samples))


if __name__ == "__main__":
    main()
