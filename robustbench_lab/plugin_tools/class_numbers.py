"""A detector's own class numbers and the dataset's, which count from 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.detector_output import Detections, padded


def check_numbers(numbers: Sequence[int], outputs: int, source: str) -> None:
    """Raise UsageError unless they are different ones of a detector's outputs. source: what errors call it."""
    if not numbers:
        raise UsageError(f"{source}: no class is left; labels lists the outputs that are classes of the dataset")
    outside = [number for number in numbers if not 0 <= number < outputs]
    if outside:
        raise UsageError(f"{source}: labels has {outside[0]}, but its outputs are 0..{outputs - 1}")
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{source}: labels names an output twice")


class ClassNumbers(nn.Module):
    """The map between both numberings, on the detector's device."""

    numbers: Tensor
    """`[K]`: the detector's number of each class of the dataset."""
    labels: Tensor
    """`[outputs]`: the dataset's label of each of the detector's outputs, -1 where it has none."""

    def __init__(self, numbers: Sequence[int], outputs: int) -> None:
        super().__init__()
        labels = torch.full((outputs,), -1)
        labels[list(numbers)] = torch.arange(len(numbers))
        self.register_buffer("numbers", torch.tensor(numbers), persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    def own(self, labels: Tensor) -> Tensor:
        """The dataset's labels to the detector's numbers, `[M]`. Raises UsageError for a class it does not know."""
        known = len(self.numbers)
        if labels.numel() and int(labels.max()) >= known:
            raise UsageError(f"label {int(labels.max())} is not among the detector's {known} classes: check labels=")
        return self.numbers[labels]

    def chosen(self, logits: Tensor) -> Tensor:
        """`[..., outputs]` to `[..., K]`: those of the dataset's classes."""
        return logits[..., self.numbers]

    def detections(self, found: Sequence[dict[str, Tensor]]) -> Detections:
        """Boxes, scores and the detector's labels of each image, to the dataset's; other classes are left out."""
        kept = []
        for one in found:
            labels = self.labels[one["labels"]]
            there = labels >= 0
            kept.append((one["boxes"][there], one["scores"][there], labels[there]))
        return padded(kept)


def objects(boxes: Tensor, labels: Tensor) -> Tensor:
    """Which places `[B, M]` hold an object: a label of -1 is none, and nor is a box without area.

    Regression targets of such a box would be infinite.
    """
    return (labels >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
