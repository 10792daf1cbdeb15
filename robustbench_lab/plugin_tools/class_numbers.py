"""A detector's own class numbers and the dataset's, which count from 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.detector_output import Detections, padded

Numbering = Literal["coco80", "from-0", "from-1"]
"""`from-0`: all outputs; `from-1`: all but the first, the background; `coco80`: those that are COCO's categories."""
COCO_OUTPUTS = 91
"""Of a detector that numbers its outputs as COCO its categories, and the background 0."""
COCO_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""Numbers from 1 to 90 that no category has."""


def numbers_of(labels: Numbering | list[int], outputs: int, source: str, *, background: bool = False) -> list[int]:
    """The detector's number of each of the dataset's classes.

    labels: how they are numbered, or the numbers themselves. outputs: what the detector tells apart. background:
    whether its output 0 can be no class. source: what errors call the detector. Raises UsageError.
    """
    if labels == "coco80":
        if outputs != COCO_OUTPUTS:
            raise UsageError(f"{source}: labels='coco80' is for {COCO_OUTPUTS} outputs, not {outputs}: use another one")
        return [number for number in range(1, COCO_OUTPUTS) if number not in COCO_GAPS]
    if isinstance(labels, str):
        labels = list(range(outputs))[labels == "from-1" :]
    if not labels:
        raise UsageError(f"{source}: no class is left; labels lists the outputs that are classes of the dataset")
    if background and 0 in labels:
        raise UsageError(f"{source}: output 0 is the background, no class: labels must number from 1")
    outside = [number for number in labels if not 0 <= number < outputs]
    if outside:
        raise UsageError(f"{source}: labels has {outside[0]}, but its outputs are 0..{outputs - 1}")
    if len(set(labels)) < len(labels):
        raise UsageError(f"{source}: labels names an output twice")
    return labels


class ClassNumbers(nn.Module):
    """The map between both numberings, on the detector's device."""

    numbers: Tensor
    """`[K]`: the detector's number of each class of the dataset."""
    labels: Tensor
    """`[outputs]`: the dataset's label of each of the detector's outputs, -1 where it has none."""

    def __init__(self, numbers: Sequence[int], outputs: int) -> None:
        super().__init__()
        follow = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))) if len(numbers) else False
        self._from = numbers[0] if follow else None
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

    def chosen(self, logits: Tensor, *, first: int = 0) -> Tensor:
        """`[..., outputs - first]` to `[..., K]`: those of the dataset's classes. first: the number of the first."""
        if self._from is not None:  # a view: picking them one by one copies all
            return logits[..., self._from - first : self._from - first + len(self.numbers)]
        return logits[..., self.numbers - first]

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
