"""Pixels of an image file as detectors take them: 8-bit RGB, upright."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from robustbench_lab.plugin_tools.image_files import UNREADABLE

ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""
SIDEWAYS = frozenset({5, 6, 7, 8})
"""Its values for which width and height change places."""
DRAFT = 8
"""JPEG files are checked at this part of their size: all bytes are read, and it takes half the time."""


CONVERSIONS = {
    "1": "grey to three equal channels",
    "L": "grey to three equal channels",
    "I": "16 bits of grey to three channels of 8",
    "I;16": "16 bits of grey to three channels of 8",
    "I;16B": "16 bits of grey to three channels of 8",
    "LA": "grey to three equal channels, alpha dropped",
    "La": "grey to three equal channels, alpha dropped",
    "RGBA": "alpha dropped",
    "RGBa": "alpha dropped",
    "RGBX": "fourth channel dropped",
    "P": "palette to RGB",
    "PA": "palette to RGB, alpha dropped",
}
"""What `read_rgb` does to Pillow's modes, as messages call it; CMYK, YCbCr, LAB and HSV go to RGB."""


class UnreadableImageError(Exception):
    """Why a file cannot be used, in a few words."""


class ReadableImage(NamedTuple):
    """An image file whose pixels can all be decoded."""

    size: tuple[int, int]
    """Width and height, upright."""
    conversion: str | None
    """What makes RGB of it; None where it is RGB."""


def readable(file: Path) -> ReadableImage:
    """Decode an image file to see that it can be. Raises UnreadableImageError."""
    try:
        with Image.open(file) as image:
            _check_depth(image)
            width, height = image.size
            mode = image.mode
            sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
            image.draft(image.mode, (max(1, width // DRAFT), max(1, height // DRAFT)))
            image.load()
    except UNREADABLE as error:
        raise UnreadableImageError(_reason(error)) from error
    conversion = None if mode == "RGB" else CONVERSIONS.get(mode, f"{mode} to RGB")
    return ReadableImage((height, width) if sideways else (width, height), conversion)


def read_rgb(file: Path) -> Image.Image:
    """An image in 8-bit RGB, turned as its EXIF orientation says. Raises UnreadableImageError.

    Grey becomes three equal channels, an alpha channel is dropped, palettes, CMYK and the like are converted as Pillow
    does it, and 16 bits of grey become 8 by rounding.
    """
    try:
        with Image.open(file) as image:
            _check_depth(image)
            return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except UNREADABLE as error:
        raise UnreadableImageError(_reason(error)) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image).astype(np.int64)
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _check_depth(image: Image.Image) -> None:
    """32-bit integers and floats have no known range; Pillow's older versions open 16-bit PNG files as the former."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise UnreadableImageError("more than 16 bits a channel")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    return " ".join(str(error).split())[:100] or type(error).__name__
