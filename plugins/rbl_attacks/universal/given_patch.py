"""A patch from an image file: one that was made on other data, or drawn by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from PIL import Image
from torch import Tensor

from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import SkipCell, UsageError, describe_error
from robustbench_lab.plugin_tools.image_files import UNREADABLE

MODES = {1: "L", 3: "RGB"}
"""Of Pillow, by the number of channels."""


def given_patch(path: str, channels: int, bounds: Bounds, largest: int) -> Tensor:
    """The image at `path` as a patch float32 `[C, S, S]` within the bounds, whose lowest value is black.

    largest: pixels of the side of the largest window; a larger image is reduced to it (bilinear with antialiasing).
    Raises UsageError where it is no square image, and SkipCell for images of neither 1 nor 3 channels.
    """
    if channels not in MODES:
        raise SkipCell(f"a patch from a file is for images of 1 or 3 channels, not {channels}")
    file = Path(path).expanduser()
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert(MODES[channels]), dtype=np.float32)
    except UNREADABLE as error:
        raise UsageError(f"adversarial-patch: cannot read the image '{path}': {describe_error(error)}") from error
    if pixels.shape[0] != pixels.shape[1]:
        raise UsageError(f"adversarial-patch: '{path}' is {pixels.shape[1]}x{pixels.shape[0]}: a patch is a square")
    levels = torch.from_numpy(pixels).reshape(*pixels.shape[:2], channels).permute(2, 0, 1) / 255
    if len(pixels) > largest:
        levels = F.interpolate(levels[None], size=(largest, largest), mode="bilinear", antialias=True)[0]
    return levels * bounds.width + bounds.low
