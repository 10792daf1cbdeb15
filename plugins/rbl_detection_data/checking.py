"""Annotations against their images: what is wrong is named one by one, counted, and refused or left out."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rbl_detection_data.annotations import AnnotatedImage, Kind, Problem
from rbl_detection_data.rgb_images import UnreadableImageError, checked_size
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.local_files import listed

OnError = Literal["refuse", "skip"]
"""What is done about images with a problem. Left out, they are left out whole: where objects of an image are not known,
a detection of them would count as a false alarm."""

OUTSIDE = 1.0
"""Pixels by which a box may stick out of its image and is clipped, for coordinates are rounded."""


@dataclass(frozen=True)
class CheckedImage:
    """An image whose file can be read, with boxes that lie inside of it."""

    sample_id: str
    file: Path
    size: tuple[int, int]
    """Width and height, upright."""
    boxes: NDArray[np.float64]
    """`[M, 4]`, xyxy in pixels of the upright image."""
    labels: NDArray[np.int64]
    """`[M]`, from 0."""
    crowd: NDArray[np.bool_]
    """`[M]`."""


def checked(
    images: Sequence[AnnotatedImage], on_error: OnError, source: str, astray: Iterable[Problem] = ()
) -> tuple[tuple[CheckedImage, ...], tuple[Problem, ...]]:
    """The images without a problem, and every problem.

    astray: problems that belong to no image; left out with `skip`. source: what messages call the data. Raises
    UsageError where there is a problem and `refuse` is chosen, or where no image is left.
    """
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_size, (one.file for one in images)))
    good, problems = [], list(astray)
    for image, size in zip(images, sizes, strict=True):
        boxes, found = _look(image, size)
        problems += found
        if not found and isinstance(size, tuple):
            labels = np.array([one.label for one in image.objects], dtype=np.int64)
            crowd = np.array([one.crowd for one in image.objects], dtype=np.bool_)
            good.append(CheckedImage(image.sample_id, image.file, size, boxes, labels, crowd))
    if problems:
        tell(problems, len(images) - len(good), len(images), on_error, source)
    if not good:
        raise UsageError(f"{source}: no image is left")
    return tuple(good), tuple(problems)


def _size(file: Path) -> tuple[int, int] | UnreadableImageError:
    try:
        return checked_size(file)
    except UnreadableImageError as error:
        return error


def _look(
    image: AnnotatedImage, size: tuple[int, int] | UnreadableImageError
) -> tuple[NDArray[np.float64], list[Problem]]:
    """Boxes in pixels, clipped, and what is wrong with the image."""
    none = np.zeros((0, 4))
    if isinstance(size, UnreadableImageError):
        return none, [*image.problems, Problem(Kind.UNREADABLE, f"'{image.sample_id}': {size}")]
    if image.size is not None and image.size != size:
        text = f"'{image.sample_id}': {_name(size)} upright, {_name(image.size)} annotated"
        return none, [*image.problems, Problem(Kind.SIZE, text)]
    found, boxes = list(image.problems), []
    for one in image.objects:
        box = np.array(one.corners) * (np.tile(size, 2) if image.shares else 1)
        kind = _wrong(box, size)
        if kind is not None:
            found.append(Problem(kind, f"{one.where}: {_name_box(box)}"))
        boxes.append(np.clip(box, 0, np.tile(size, 2)))
    return np.array(boxes).reshape(-1, 4), found


def _wrong(box: NDArray[np.float64], size: tuple[int, int]) -> Kind | None:
    if not np.isfinite(box).all():
        return Kind.NUMBER
    if (box[2:] <= box[:2]).any():
        return Kind.EMPTY
    if (box < -OUTSIDE).any() or (box[2:] > np.array(size) + OUTSIDE).any():
        return Kind.OUTSIDE
    inside = np.clip(box, 0, np.tile(size, 2))
    return Kind.OUTSIDE if (inside[2:] <= inside[:2]).any() else None


def tell(problems: Sequence[Problem], hit: int, total: int, on_error: OnError, source: str) -> None:
    """Raise or warn, in one line, with the count of every kind and the first of each."""
    summary = "; ".join(_summaries(problems))
    if on_error == "refuse":
        raise UsageError(
            f"{source}: {summary}. Repair them, or add on_error='skip' to leave out {hit} of {total} images"
        )
    warnings.warn(f"{source}: {hit} of {total} images are left out whole: {summary}", stacklevel=2)


def _summaries(problems: Sequence[Problem]) -> Iterator[str]:
    for kind in Kind:
        places = [" ".join(one.where.split()) for one in problems if one.kind is kind]
        if places:
            yield f"{len(places):,} x {kind} ({listed(places)})"


def _name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _name_box(box: NDArray[np.float64]) -> str:
    return "[" + ", ".join(f"{edge:.6g}" for edge in box) + "]"
