"""Labelled images that fit in memory, checked once and handed out as float32 in [0, 1]."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.errors import UsageError

Layout = Literal["auto", "NCHW", "NHWC", "NHW"]
CHANNELS = (1, 3, 4)
UNIT = Bounds(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """A dataset held in two arrays. Make one with `image_arrays`, which checks them."""

    images: NDArray[Any]
    """`[N, C, H, W]`, uint8 0..255 (a quarter of the memory of floats) or float32 in [0, 1]."""
    labels: NDArray[np.int64]
    """`[N]`."""
    classes: int | None = None
    bounds: Bounds = UNIT

    @cached_property
    def revision(self) -> str:
        """SHA-256 of shape, type, pixels and labels: the same however the file was compressed."""
        digest = hashlib.sha256(f"{self.images.shape} {self.images.dtype.name}".encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    @cached_property
    def sample_ids(self) -> Sequence[str]:
        """The position in the array."""
        return [str(index) for index in range(len(self.images))]

    def load(self, indices: Sequence[int]) -> Samples:
        """Inputs float32 `[n, C, H, W]` in [0, 1], targets int64 `[n]`."""
        import torch

        chosen = np.asarray(indices, dtype=np.int64)
        inputs = torch.from_numpy(np.ascontiguousarray(self.images[chosen])).float()
        if self.images.dtype == np.uint8:
            inputs = inputs.div_(255)
        return Samples(inputs, torch.from_numpy(self.labels[chosen]))


def image_arrays(
    images: NDArray[Any], labels: NDArray[Any], *, source: str, layout: Layout = "auto", classes: int | None = None
) -> ImageArrays:
    """A dataset from arrays of images and integer labels `[N]` (or `[N, 1]`).

    images: uint8, or float in [0, 1]. layout: order of the axes; `auto` takes N×H×W as one channel, and for four axes
    takes the last as channels where it has length 1, 3 or 4, else the second; where both would do, it asks.
    classes: number of classes, if known. source: what errors call the data. Raises UsageError.
    """
    _check_values(images, source)
    ordered = _to_nchw(images, layout, source)
    checked = _labels(labels, len(images), classes, source)
    return ImageArrays(ordered if images.dtype == np.uint8 else ordered.astype(np.float32), checked, classes)


def _check_values(images: NDArray[Any], source: str) -> None:
    wanted = "store uint8 0..255, or floats in [0, 1]"
    if images.size == 0:
        raise UsageError(f"{source}: there are no images (shape {list(images.shape)})")
    if images.dtype == np.uint8:
        return
    if not np.issubdtype(images.dtype, np.floating):
        raise UsageError(f"{source}: images are {images.dtype}; {wanted}")
    low, high = float(images.min()), float(images.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise UsageError(f"{source}: images hold NaN or infinite values; {wanted}")
    if low < 0 or high > 1:
        hint = (
            "divide by 255" if low >= 0 and high <= 255 else "undo the normalisation, and give the model mean and std"
        )
        raise UsageError(f"{source}: images lie in {low:.4g}..{high:.4g}, not in [0, 1]; {hint}")


def _to_nchw(images: NDArray[Any], layout: Layout, source: str) -> NDArray[Any]:
    """A view `[N, C, H, W]`."""
    found = _layout(images.shape, source) if layout == "auto" else layout
    if images.ndim != len(found):
        raise UsageError(f"{source}: images of shape {list(images.shape)} cannot have layout {found}")
    if found == "NHW":
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if found == "NHWC" else images


def _layout(shape: tuple[int, ...], source: str) -> Layout:
    if len(shape) == 3:
        return "NHW"
    if len(shape) != 4:
        raise UsageError(f"{source}: images have shape {list(shape)}; NxHxW, NxHxWxC or NxCxHxW is needed")
    last, second = shape[3] in CHANNELS, shape[1] in CHANNELS
    if last == second:
        raise UsageError(
            f"{source}: images have shape {list(shape)}, whose channel axis cannot be told; "
            "add layout='NHWC' or layout='NCHW'"
        )
    return "NHWC" if last else "NCHW"


def _labels(labels: NDArray[Any], count: int, classes: int | None, source: str) -> NDArray[np.int64]:
    if not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"{source}: labels are {labels.dtype}; give the class number of each image as an integer")
    if labels.shape not in ((count,), (count, 1)):
        raise UsageError(
            f"{source}: labels have shape {list(labels.shape)} for {count} images; give one class number an image"
        )
    flat = labels.reshape(-1).astype(np.int64)
    low, high = int(flat.min()), int(flat.max())
    if low < 0:
        raise UsageError(f"{source}: label {low} is negative; number the classes from 0")
    if classes is not None and high >= classes:
        raise UsageError(f"{source}: label {high} does not fit {classes} classes (0..{classes - 1})")
    return flat
