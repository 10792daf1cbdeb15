"""Images of any size on one canvas, and their boxes with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustbench_lab.errors import UsageError

Size = int | list[int]
"""Of the canvas: the side of a square, or `[height, width]`, in pixels."""

GREY = 114
"""Of 255: what the padding is filled with, as in YOLO's letterboxing."""

RULE = f"bilinear with antialiasing, at the top left, padded with {GREY}"
"""Part of a dataset's revision."""


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies on its canvas.

    It is resized as far as the canvas allows, up or down, with its aspect kept up to a rounded pixel, and put at the
    top left: padding is on the right or at the bottom.
    """

    image: tuple[int, int]
    """Width and height of the image as it was, in pixels."""
    canvas: tuple[int, int]
    """Width and height of the canvas."""

    @property
    def content(self) -> tuple[int, int]:
        """Width and height of the resized image."""
        scale = min(self.canvas[0] / self.image[0], self.canvas[1] / self.image[1])
        return max(1, round(self.image[0] * scale)), max(1, round(self.image[1] * scale))

    @property
    def scale(self) -> NDArray[np.float64]:
        """Pixels of the canvas for one of the image, across, down, across, down: `[4]`."""
        return np.tile(np.array(self.content) / np.array(self.image), 2)

    def to_canvas(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes `[M, 4]` of the image, xyxy in its pixels, to the canvas."""
        return boxes * self.scale

    def to_image(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes `[M, 4]` on the canvas, to the image as it was."""
        return boxes / self.scale

    def place(self, image: Image.Image) -> NDArray[np.uint8]:
        """The image, RGB, on its canvas: uint8 `[H, W, 3]`."""
        width, height = self.content
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        canvas = np.full((self.canvas[1], self.canvas[0], 3), GREY, dtype=np.uint8)
        canvas[:height, :width] = np.asarray(image)
        return canvas


def canvas_of(size: Size | Sequence[int], source: str) -> tuple[int, int]:
    """Width and height of the canvas that `size` names. Raises UsageError."""
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or min(sides) < 1:
        raise UsageError(f"{source}: size must be a number of pixels or [height, width], not {size}")
    return sides[1], sides[0]
