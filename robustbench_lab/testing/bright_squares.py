"""A detector whose answer is known: bright squares on a dark image."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor, nn

from robustbench_lab.tasks.boxes import iou
from robustbench_lab.tasks.detector_output import DetectorOutput

SIDE = 8
"""Pixels of the squares it looks for."""
STEEPNESS = 20.0
"""Log-odds for each grey level, of a range of 1, by which a window is brighter than two thirds."""


class BrightSquares(nn.Module):
    """One class: windows of `SIDE` pixels that are bright. Each place of a window is a candidate."""

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, C, H, W]` in [0, 1], of at least `SIDE` pixels, to detections."""
        mean = F.avg_pool2d(images.mean(1, keepdim=True), SIDE, stride=1)
        rows, columns = (torch.arange(length, device=images.device) for length in mean.shape[2:])
        top, left = (one.flatten() for one in torch.meshgrid(rows, columns, indexing="ij"))
        boxes = torch.stack([left, top, left + SIDE, top + SIDE], dim=1).to(images)
        logits = STEEPNESS * (mean.flatten(1) - 2 / 3)[:, :, None]

        def training_loss(objects: Tensor, labels: Tensor) -> Tensor:
            there = (iou(boxes, objects) >= 0.5) & (labels == 0)[:, None]
            wanted = there.any(2, keepdim=True).to(logits.dtype)
            return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum((1, 2))

        candidates = boxes.expand(len(images), -1, 4)
        return DetectorOutput.from_candidates(candidates, logits, training_loss=training_loss)


def bright_squares(count: int, channels: int = 3, size: tuple[int, int] = (24, 32)) -> tuple[Tensor, Tensor]:
    """Dark images `[count, channels, height, width]` with one bright square each, and its box, `[count, 1, 4]`."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    images = 0.1 * torch.rand(count, channels, height, width, generator=generator)
    top = torch.randint(0, height - SIDE + 1, (count,), generator=generator)
    left = torch.randint(0, width - SIDE + 1, (count,), generator=generator)
    for image, row, column in zip(images, top.tolist(), left.tolist(), strict=True):
        image[:, row : row + SIDE, column : column + SIDE] = 0.95
    return images, torch.stack([left, top, left + SIDE, top + SIDE], dim=1).float()[:, None]
