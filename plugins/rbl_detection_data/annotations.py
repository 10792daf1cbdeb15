"""What the readers of annotation files find, before anything is checked against the images."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class Kind(StrEnum):
    """What can be wrong, as messages call it."""

    UNREADABLE = "image that does not load"
    SIZE = "image of another size than its annotation says"
    OUTSIDE = "box outside of its image"
    EMPTY = "box without area"
    NUMBER = "box that is not made of finite numbers"
    CLASS = "object of a class that is not declared"
    DUPLICATE = "annotation given twice"
    FORM = "annotation that cannot be read"
    NO_IMAGE = "annotation of an image that is not listed"
    NO_MASK = "image without a mask"
    MASK_ALONE = "mask without an image"
    MASK_UNREADABLE = "mask that does not load"
    MASK_COLOURS = "mask in colours, not in class numbers"
    MASK_SIZE = "mask of another size than its image"
    MASK_CLASS = "mask with a class that is not declared"


class Problem(NamedTuple):
    """One of them, and where it is: `line 3 of labels/a.txt`."""

    kind: Kind
    where: str


class LabelledBox(NamedTuple):
    """One object."""

    corners: tuple[float, float, float, float]
    """xyxy: left, top, right, bottom, in pixels of the upright image or as shares of its sides."""
    label: int
    """From 0."""
    crowd: bool
    """Neither to be found nor a false alarm."""
    where: str
    """What it is called in messages: `annotation 17 of 'a.jpg'`."""


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with what an annotation file says of it."""

    sample_id: str
    file: Path
    objects: tuple[LabelledBox, ...]
    size: tuple[int, int] | None = None
    """Width and height, where the annotation gives them."""
    shares: bool = False
    """Corners are shares of the image's sides rather than pixels."""
    missing_labels: bool = False
    """There is no label file, which counts as an image without objects."""
    problems: tuple[Problem, ...] = field(default=())
    """What the reader found wrong; the others are found by `checking`."""
