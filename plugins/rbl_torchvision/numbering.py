"""How torchvision's detectors number their classes."""

from collections.abc import Sequence
from typing import Literal

from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.class_numbers import check_numbers

Numbering = Literal["coco80", "from-0", "from-1"]
COCO = 91
"""Outputs of a detector trained with COCO's own category ids, 0 for the background: 80 of the others are in use."""


def numbers_of(
    labels: Numbering | list[int] | None, outputs: int, categories: Sequence[str], *, background: bool, source: str
) -> list[int]:
    """The detector's number of each of the dataset's classes.

    labels: how they are numbered, or the numbers themselves; None: `coco80` for 91 outputs, else `from-1`.
    outputs: what the detector tells apart. categories: COCO's, with those that are not in use as "N/A".
    background: whether output 0 is no class. source: what errors call the detector. Raises UsageError.
    """
    if labels is None:
        labels = "coco80" if outputs == COCO else "from-1"
    if labels == "coco80":
        if outputs != COCO:
            raise UsageError(f"{source}: labels='coco80' is for {COCO} outputs, not {outputs}: use 'from-1' or a list")
        return [number for number, name in enumerate(categories) if name not in ("__background__", "N/A")]
    if labels == "from-0":
        labels = list(range(outputs))
    elif labels == "from-1":
        labels = list(range(1, outputs))
    check_numbers(labels, outputs, source)
    if background and 0 in labels:
        raise UsageError(f"{source}: output 0 is the background, no class: labels must number from 1")
    return labels
