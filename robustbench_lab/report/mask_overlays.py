"""What a segmentation network makes of images, before and after an attack, laid over them in colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.records import CellRecord, Outcomes

if TYPE_CHECKING:
    from torch import nn

LEGEND = (
    "Pixels are tinted by the class that the network gives them, in the colours of Pascal VOC: class 0 is darkened. "
    "Masks are made again by the stored model."
)


def predicted_masks(record: CellRecord, model: nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class of each pixel, `[n, H, W]`, of images `[n, C, H, W]`."""
    import torch

    from robustbench_lab.global_randomness import seeded
    from robustbench_lab.tasks.class_masks import predicted_classes

    with torch.inference_mode(), seeded(record.cell.cell_id, "pictures"):
        made = [predicted_classes(model(torch.from_numpy(one[None]))).clamp_min(0) for one in inputs]
    classes: NDArray[np.int64] = torch.cat(made).numpy()
    return classes


def tinted(pixels: NDArray[np.uint8], classes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Pixels `[H, W, 3]`, half of each the colour of its class `[H, W]`."""
    return (pixels // 2 + colours_of(classes) // 2).astype(np.uint8)


def colours_of(classes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The colour map of Pascal VOC's development kit, `[..., 3]`: bits of the class, three by three, from the top."""
    colours = np.zeros((*classes.shape, 3), np.uint8)
    for shift in range(8):
        for channel in range(3):
            bit = (classes >> (3 * shift + channel)) & 1
            colours[..., channel] |= (bit << (7 - shift)).astype(np.uint8)
    return colours


def summaries(outcomes: Outcomes, position: int) -> tuple[str, str]:
    """What is stored of an image: the share of its pixels that are right, before and after."""
    columns: Sequence[NDArray[np.int32]] = [outcomes.columns[f"{when}_right"] for when in ("clean", "robust")]
    total = max(1, int(outcomes.columns["truth"][position].sum()))
    clean, attacked = (f"{int(one[position].sum()) / total:.0%} of its pixels right" for one in columns)
    return clean, attacked
