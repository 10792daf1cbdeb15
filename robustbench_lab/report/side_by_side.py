"""Images side by side as one PNG file, with boxes and titles. Text is drawn, so that no name can be anything else."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.report.formatting import printable, shorten

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

SIDE = 320
"""Pixels of a panel's longer side: larger images are reduced to it, smaller ones enlarged by a whole number."""
GAP = 8
LINE = 17
TITLE_LETTERS = 44
TAG_LETTERS = 24
MOST_TAGS = 12
"""Boxes of a panel that are named; the others are only drawn."""
INK = (27, 31, 36)
PAPER = (255, 255, 255)
DASH = 6


class Colour(Enum):
    """Of boxes: told apart by the colour-blind, too (Okabe & Ito)."""

    RIGHT = (86, 180, 233)
    WRONG = (213, 94, 0)
    MISSED = (240, 228, 66)


@dataclass(frozen=True)
class Mark:
    """A box on a panel; what was missed is dashed."""

    box: tuple[float, float, float, float]
    """xyxy in pixels of the image."""
    colour: Colour
    tag: str


@dataclass(frozen=True)
class Panel:
    """One of the images."""

    pixels: NDArray[np.uint8]
    """`[H, W, 3]`."""
    titles: tuple[str, ...]
    """Lines above it."""
    marks: tuple[Mark, ...] = ()
    """Those first in order lie on top, and are named."""


def side_by_side(panels: Sequence[Panel]) -> bytes:
    """The panels, all of one size, as a PNG file."""
    from PIL import Image, ImageDraw

    drawn = [_draw(panel) for panel in panels]
    width, height = drawn[0].size
    head = LINE * max(len(panel.titles) for panel in panels) + GAP
    sheet = Image.new("RGB", (len(drawn) * (width + GAP) - GAP, head + height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, (panel, image) in enumerate(zip(panels, drawn, strict=True)):
        left = place * (width + GAP)
        sheet.paste(image, (left, head))
        for line, title in enumerate(panel.titles):
            letters = min(TITLE_LETTERS, max(4, width // 7))
            pen.text((left, 2 + line * LINE), _text(title, letters), fill=INK, font=_font())
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw(panel: Panel) -> Image.Image:
    """A panel's image in its final size, with its boxes."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(panel.pixels)
    scale = SIDE / max(image.size)
    if scale >= 1:
        scale = int(scale)
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    for place, mark in reversed(list(enumerate(panel.marks))):
        box = [edge * scale for edge in mark.box]
        _outline(pen, box, mark.colour)
        if place < MOST_TAGS and mark.tag:
            _name(pen, box, mark)
    return image


def _outline(pen: ImageDraw.ImageDraw, box: Sequence[float], colour: Colour) -> None:
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    for (x, y), (to_x, to_y) in pairwise(corners):
        pieces = max(1, int(max(abs(to_x - x), abs(to_y - y)) / DASH)) if colour is Colour.MISSED else 1
        for piece in range(0, pieces, 2):
            ends = [(x + (to_x - x) * part / pieces, y + (to_y - y) * part / pieces) for part in (piece, piece + 1)]
            pen.line(ends, fill=colour.value, width=2)


def _name(pen: ImageDraw.ImageDraw, box: Sequence[float], mark: Mark) -> None:
    """The tag at the box's upper left corner, inside the image."""
    text = _text(mark.tag, TAG_LETTERS)
    at = max(0.0, box[0]), max(0.0, box[1] - LINE + 3)
    pen.rectangle(pen.textbbox(at, text, font=_font()), fill=mark.colour.value)
    pen.text(at, text, fill=INK, font=_font())


def _text(text: str, letters: int) -> str:
    return shorten(printable(text), letters)


@cache
def _font() -> ImageFont.FreeTypeFont:
    """The one that matplotlib brings: it has the letters of most languages."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 12)
