"""Scenes for detectors: scikit-learn's handwritten digits in ink of any colour on pieces of real photographs.

Everything random about a scene follows from BLAKE2b hashes of its split and number, and it is painted with integers
alone, so its bytes depend on no library's random generator or resizing. The photographs are the two that scikit-learn
ships, "china" and "flower" (CC BY 2.0, see its `datasets/images/README.txt`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Annotated, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from rbl_reference import scikit_learn_data
from rbl_reference.digits import CLASSES, GREY_LEVELS, Split, split_indices
from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.errors import UsageError, did_you_mean

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

SIZE = 64
"""Pixels of a scene's side."""
MOST_OBJECTS = 5
HEIGHTS = 16, 30
"""Pixels a digit's 8x8 grid is stretched to, least and most; its width is 75% to 125% of that."""
CONTRASTS = 80, 150
"""Grey levels of 255 by which ink is lighter or darker than what it covers, on average over the colours."""
TINT = 40
"""Levels by which each colour of the ink may differ from that, up or down."""
SHRINK = 2
"""Pixels of a photograph's side that become one of a scene's."""
TEST_FROM = 0.6
"""Of a photograph's width: test scenes lie to the right of it, training scenes to the left."""
GAP = 1
"""Pixels between the boxes of two digits, at least."""
TRIES = 12
"""Places tried for a digit before it is left out."""
ONE = 256
"""1 in the fixed-point numbers of the painting."""


class DigitScenes:
    """Images `[3, 64, 64]` in [0, 1] with 1 to 5 handwritten digits each, whose boxes are tight around the ink.

    Digits and photographs are apart: test scenes show test digits on the right of the photographs, training scenes
    training digits on the left. Scene n is the same however many there are.
    """

    bounds = Bounds(0.0, 1.0)
    classes = CLASSES
    class_names = tuple(str(digit) for digit in range(CLASSES))

    def __init__(self, *, split: Split = "test", scenes: Annotated[int, Field(ge=1)] = 50) -> None:
        """scenes: how many; each number gives another one."""
        if split not in get_args(Split):
            raise UsageError(f"dataset 'digit-scenes' has no split '{split}'.{did_you_mean(split, get_args(Split))}")
        self.sample_ids: tuple[str, ...] = tuple(f"digit-scenes/{split}/{index:05d}" for index in range(scenes))
        digits, labels, backgrounds = read_material(split)
        painted = [paint(f"{name}", digits, labels, backgrounds) for name in self.sample_ids]
        images, boxes, classes, _ = (np.stack(parts) for parts in zip(*painted, strict=True))
        self.revision = revision_of(images, boxes, classes)
        self._images = torch.from_numpy(images)
        self._boxes = torch.from_numpy(boxes).float()
        self._labels = torch.from_numpy(classes)

    def load(self, indices: Sequence[int]) -> Samples:
        """Images float32 `[N, 3, 64, 64]`, and for the 5 objects of each `boxes`, `labels` (-1: none) and `crowd`."""
        index = torch.as_tensor(indices, dtype=torch.long)
        labels = self._labels[index]
        targets = {"boxes": self._boxes[index], "labels": labels, "crowd": torch.zeros_like(labels, dtype=torch.bool)}
        return Samples(self._images[index].float().div(255), targets)


def read_material(split: Split) -> tuple[list[Integers], list[int], list[Bytes]]:
    """What a split's scenes are made of: digits `[8, 8]` of 0..16 with their classes, and photographs `[3, H, W]`."""
    images, labels = scikit_learn_data.digits()
    chosen = split_indices(labels)[split]
    photographs = [shrunk(scikit_learn_data.photograph(name)) for name in scikit_learn_data.PHOTOGRAPHS]
    edge = int(photographs[0].shape[2] * TEST_FROM)
    parts = [photo[:, :, edge:] if split == "test" else photo[:, :, :edge] for photo in photographs]
    return [images[index].astype(np.int64) for index in chosen], [int(labels[index]) for index in chosen], parts


def shrunk(photograph: Bytes) -> Bytes:
    """`[H, W, 3]` to `[3, H / 2, W / 2]`: the mean of 2x2 pixels."""
    height, width = (side - side % SHRINK for side in photograph.shape[:2])
    blocks = photograph[:height, :width].astype(np.int64).reshape(height // SHRINK, SHRINK, width // SHRINK, SHRINK, 3)
    means = (blocks.sum(axis=(1, 3)) + SHRINK * SHRINK // 2) // (SHRINK * SHRINK)
    return np.ascontiguousarray(means.transpose(2, 0, 1).astype(np.uint8))


def hashed_numbers(name: str) -> Iterator[int]:
    """64-bit numbers without end, the same for a name on every machine and for ever."""
    block = 0
    while True:
        digest = blake2b(f"{name}/{block}".encode(), digest_size=64).digest()
        yield from np.frombuffer(digest, "<u8").tolist()
        block += 1


@dataclass(frozen=True)
class Choices:
    """A scene's own random choices, one after the other."""

    numbers: Iterator[int]

    def between(self, least: int, most: int) -> int:
        """A whole number from least to most, both possible."""
        return least + next(self.numbers) % (most - least + 1)


def paint(
    name: str, digits: Sequence[Integers], labels: Sequence[int], backgrounds: Sequence[Bytes]
) -> tuple[Bytes, Integers, Integers, Bytes]:
    """The scene of a name: image `[3, 64, 64]`, boxes `[5, 4]` xyxy in pixels, classes `[5]`, -1 where no object, mask.

    The mask `[64, 64]` is 1 + the digit where ink covers at least half of a pixel, and 0 elsewhere.
    """
    choices = Choices(hashed_numbers(name))
    image = background(choices, backgrounds)
    boxes = np.zeros((MOST_OBJECTS, 4), np.int64)
    classes = np.full(MOST_OBJECTS, -1, np.int64)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    there = 0
    for _ in range(choices.between(1, MOST_OBJECTS)):
        which = choices.between(0, len(digits) - 1)
        height = choices.between(*HEIGHTS)
        ink = cropped(stretched(digits[which], height, height * choices.between(75, 125) // 100))
        box = free_place(choices, ink.shape, boxes[:there])
        if box is None:
            continue
        colour(choices, image[:, box[1] : box[3], box[0] : box[2]], ink)
        mask[box[1] : box[3], box[0] : box[2]][2 * ink >= ONE] = 1 + labels[which]
        boxes[there], classes[there] = box, labels[which]
        there += 1
    return image.astype(np.uint8), boxes, classes, mask


def background(choices: Choices, backgrounds: Sequence[Bytes]) -> Integers:
    """A piece of one of the photographs `[3, H, W]`, mirrored or not, `[3, 64, 64]`."""
    photograph = backgrounds[choices.between(0, len(backgrounds) - 1)]
    top = choices.between(0, photograph.shape[1] - SIZE)
    left = choices.between(0, photograph.shape[2] - SIZE)
    piece = photograph[:, top : top + SIZE, left : left + SIZE].astype(np.int64)
    return piece[:, :, ::-1].copy() if choices.between(0, 1) else piece


def stretched(digit: Integers, height: int, width: int) -> Integers:
    """A digit `[8, 8]` of 0..16 as the ink on `[height, width]` pixels, 0..256: bilinear, then with sharper edges."""
    padded = np.pad(digit, 1)
    rows, down = samples_of(digit.shape[0], height)
    columns, right = samples_of(digit.shape[1], width)
    down, right = down[:, None], right[None, :]
    top, bottom = padded[rows], padded[rows + 1]
    upper = top[:, columns] * (ONE - right) + top[:, columns + 1] * right
    lower = bottom[:, columns] * (ONE - right) + bottom[:, columns + 1] * right
    grey = (upper * (ONE - down) + lower * down) // ONE  # 0 .. 16 * 256
    # Less than a quarter of a cell inked is none, more than three quarters are all of it.
    return np.clip(grey * 2 // GREY_LEVELS - ONE // 2, 0, ONE)


def samples_of(cells: int, pixels: int) -> tuple[Integers, Integers]:
    """For each pixel the cell of a zero-padded row of cells before its centre, and how far it lies beyond, 0..255."""
    centres = (2 * np.arange(pixels) + 1) * cells * ONE // (2 * pixels) + ONE // 2
    return centres // ONE, centres % ONE


def cropped(ink: Integers) -> Integers:
    """The part within the rows and columns where at least one pixel is half covered."""
    covered = ink * 2 >= ONE
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def free_place(choices: Choices, shape: tuple[int, ...], taken: Integers) -> tuple[int, int, int, int] | None:
    """A box of `shape` (height, width) that comes near none of the boxes `[M, 4]`; None where no try finds one."""
    height, width = shape
    for _ in range(TRIES):
        left, top = choices.between(0, SIZE - width), choices.between(0, SIZE - height)
        right, bottom = left + width, top + height
        apart = (
            (taken[:, 0] >= right + GAP)
            | (taken[:, 2] + GAP <= left)
            | (taken[:, 1] >= bottom + GAP)
            | (taken[:, 3] + GAP <= top)
        )
        if apart.all():
            return left, top, right, bottom
    return None


def colour(choices: Choices, place: Integers, ink: Integers) -> None:
    """Put ink `[h, w]` of 0..256 on a piece of the image `[3, h, w]`: darker than it or lighter, as there is room."""
    contrast = choices.between(*CONTRASTS)
    mean = int(place.sum()) // place.size
    lighter = mean < contrast or (mean <= 255 - contrast and choices.between(0, 1) == 1)
    level = mean + contrast if lighter else mean - contrast
    tints = [choices.between(-TINT, TINT) for _ in range(3)]
    ink_colour = np.clip(np.array([level + tint for tint in tints])[:, None, None], 0, 255)
    place += (ink_colour - place) * ink // ONE


def revision_of(images: Bytes, *annotations: Bytes | Integers) -> str:
    """SHA-256 over the bytes of images and what is annotated: boxes and classes, or masks."""
    digest = sha256(f"{images.shape}".encode())
    for part in (images, *annotations):
        digest.update(np.ascontiguousarray(part).astype(part.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
