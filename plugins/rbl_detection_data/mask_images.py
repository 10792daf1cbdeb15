"""Images with masks as a dataset of the task `segmentation`: checked when it is opened, read when asked for."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rbl_detection_data.annotations import Kind, Problem
from rbl_detection_data.checking import OnError, tell, tell_converted
from rbl_detection_data.letterbox import RULE, Letterbox, Size, canvas_of
from rbl_detection_data.rgb_images import ReadableImage, UnreadableImageError, read_rgb, readable
from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.image_arrays import UNIT
from robustbench_lab.plugin_tools.image_files import UNREADABLE
from robustbench_lab.provenance import file_sha256
from robustbench_lab.tasks.class_masks import IGNORED

MODES = ("1", "L", "P", "I", "I;16")
"""Of Pillow: one number a pixel. Of a palette it is the number that counts, not its colour."""


@dataclass(frozen=True)
class MaskedImage:
    """An image and the file with its mask."""

    sample_id: str
    image: Path
    mask: Path


@dataclass(frozen=True, eq=False)
class MaskImages:
    """Images on one canvas with their masks. Make one with `mask_images`, which checks them."""

    images: tuple[MaskedImage, ...]
    class_names: tuple[str, ...]
    canvas: tuple[int, int]
    """Width and height, in pixels."""
    problems: tuple[Problem, ...]
    """All that is wrong with what was left out."""
    source: str
    """What messages call the data."""
    bounds: Bounds = UNIT

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def sample_ids(self) -> Sequence[str]:
        """File names, below the images' folder, with forward slashes."""
        return [image.sample_id for image in self.images]

    @cached_property
    def revision(self) -> str:
        """SHA-256 of every image and mask file, the classes, and how images are prepared."""
        digest = hashlib.sha256(f"{self.canvas} {RULE}, masks nearest {self.class_names}\n".encode())
        for one in sorted(self.images, key=lambda image: image.sample_id):
            digest.update(f"{one.sample_id}\0{file_sha256(one.image)}\0{file_sha256(one.mask)}\n".encode())
        return digest.hexdigest()

    def load(self, indices: Sequence[int]) -> Samples:
        """Inputs float32 `[n, 3, H, W]` in [0, 1]; masks uint8 `[n, H, W]`, 255 on the padding too.

        Raises UsageError where a file has become unreadable.
        """
        width, height = self.canvas
        inputs = torch.empty(len(indices), 3, height, width)
        masks = torch.full((len(indices), height, width), IGNORED, dtype=torch.uint8)
        attackable = torch.zeros(len(indices), 1, height, width, dtype=torch.bool)
        for place, index in enumerate(indices):
            image, mask = self._read(self.images[index])
            letterbox = Letterbox(image.size, self.canvas)
            across, down = letterbox.content
            inputs[place] = torch.from_numpy(letterbox.place(image)).permute(2, 0, 1).float().div_(255)
            resized = Image.fromarray(mask).resize((across, down), Image.Resampling.NEAREST)
            masks[place, :down, :across] = torch.from_numpy(np.array(resized))
            attackable[place, :, :down, :across] = True
        return Samples(inputs, masks, attackable=None if bool(attackable.all()) else attackable)

    def _read(self, one: MaskedImage) -> tuple[Image.Image, NDArray[np.uint8]]:
        try:
            return read_rgb(one.image), read_mask(one.mask).astype(np.uint8)
        except UnreadableImageError as error:
            raise UsageError(f"{self.source}: cannot read '{one.sample_id}' or its mask: {error}") from error


def mask_images(
    images: Iterable[MaskedImage],
    class_names: Sequence[str],
    *,
    size: Size,
    on_error: OnError,
    source: str,
    astray: Iterable[Problem] = (),
) -> MaskImages:
    """Check images and masks and make a dataset of them.

    They are put in the order of a hash of their sample id, so that the first N are a fixed random choice. astray:
    problems that belong to no image. Raises UsageError where there is a problem and `refuse` is chosen, where no image
    is left, or where there are more than 255 classes.
    """
    canvas = canvas_of(size, source)
    if not 2 <= len(class_names) <= IGNORED:
        raise UsageError(f"{source}: classes must be 2 to {IGNORED}, not {len(class_names)}")
    ordered = sorted(images, key=lambda one: hashlib.sha256(one.sample_id.encode()).digest())
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda one: _look(one, len(class_names)), ordered))
    readable_ones = [(one, seen) for one, seen in zip(ordered, found, strict=True) if isinstance(seen, ReadableImage)]
    good = tuple(one for one, _ in readable_ones)
    problems = (*(seen for seen in found if isinstance(seen, Problem)), *astray)
    if problems:
        tell(problems, len(ordered) - len(good), len(ordered), on_error, source)
    if not good:
        raise UsageError(f"{source}: no image is left")
    tell_converted([(one.sample_id, image.conversion) for one, image in readable_ones], source)
    return MaskImages(good, tuple(class_names), canvas, problems, source)


def read_mask(file: Path) -> NDArray[np.int64]:
    """The number of each pixel, `[H, W]`. Raises UnreadableImageError, and ColouredMaskError."""
    try:
        with Image.open(file) as image:
            if image.mode not in MODES:
                raise ColouredMaskError(f"mode {image.mode}")
            return np.asarray(image).astype(np.int64)
    except FileNotFoundError as error:
        raise UnreadableImageError("there is no such file") from error
    except UNREADABLE as error:
        raise UnreadableImageError(" ".join(str(error).split())[:100]) from error


class ColouredMaskError(Exception):
    """A mask's pixels are colours."""


def _look(one: MaskedImage, classes: int) -> ReadableImage | Problem:
    """The image, or the first thing that is wrong with it or its mask."""
    if not one.mask.is_file():
        return Problem(Kind.NO_MASK, f"'{one.sample_id}': there is no '{one.mask.name}'")
    try:
        image = readable(one.image)
    except UnreadableImageError as error:
        return Problem(Kind.UNREADABLE, f"'{one.sample_id}': {error}")
    try:
        mask = read_mask(one.mask)
    except UnreadableImageError as error:
        return Problem(Kind.MASK_UNREADABLE, f"'{one.mask.name}': {error}")
    except ColouredMaskError as error:
        return Problem(Kind.MASK_COLOURS, f"'{one.mask.name}': {error}")
    if mask.shape != image.size[::-1]:
        sizes = f"{mask.shape[1]}x{mask.shape[0]}, its image {image.size[0]}x{image.size[1]} upright"
        text = f"'{one.mask.name}': {sizes}"
        return Problem(Kind.MASK_SIZE, text)
    beyond = mask[(mask != IGNORED) & ((mask < 0) | (mask >= classes))]
    return Problem(Kind.MASK_CLASS, f"'{one.mask.name}': {beyond[0]} of {classes}") if beyond.size else image
