"""What an attack made for all samples of a cell, as pictures: a patch can be printed, and given to another run."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Bounds

PATCH = re.compile(r"patch-\d{1,6}")
"""Names of the tensors, which become parts of file names: files of others may hold any."""
CHANNELS = (1, 3)


def kept_patches(file: Path, bounds: Bounds) -> Iterator[tuple[str, bytes]]:
    """Name and PNG of each patch `[C, S, S]` in a file of adversarial inputs; black is the lowest value.

    Raises SafetensorError.
    """
    from safetensors import safe_open

    with safe_open(file, framework="np") as tensors:
        for name in sorted(tensors.keys()):
            if not PATCH.fullmatch(name):
                continue
            patch: NDArray[np.float32] = tensors.get_tensor(name)
            if patch.ndim == 3 and patch.shape[0] in CHANNELS and patch.size:
                yield name, _png((patch - bounds.low) / bounds.width)


def _png(levels: NDArray[np.float32]) -> bytes:
    from PIL import Image

    pixels = (np.nan_to_num(levels).clip(0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
