"""Annotations against their images: what is wrong is named one by one, counted, and refused or left out."""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rbl_detection_data.annotations import AnnotatedImage, Kind, Problem
from rbl_detection_data.rgb_images import ReadableImage, UnreadableImageError, readable
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
    UsageError where there is a problem and `refuse` is chosen, or where no image is left. Warns of images that are
    converted to RGB, and of those without objects.
    """
    with ThreadPoolExecutor() as pool:
        files = list(pool.map(_read, (one.file for one in images)))
    good, converted, problems = [], [], list(astray)
    for image, file in zip(images, files, strict=True):
        boxes, found = _look(image, file)
        problems += found
        if found or isinstance(file, UnreadableImageError):
            continue
        labels = np.array([one.label for one in image.objects], dtype=np.int64)
        crowd = np.array([one.crowd for one in image.objects], dtype=np.bool_)
        good.append(CheckedImage(image.sample_id, image.file, file.size, boxes, labels, crowd))
        converted.append((image.sample_id, file.conversion))
    if problems:
        tell(problems, len(images) - len(good), len(images), on_error, source)
    if not good:
        raise UsageError(f"{source}: no image is left")
    tell_converted(converted, source)
    left = {one.sample_id for one in good}
    _tell_empty([one for one in images if one.sample_id in left and not one.objects], len(good), source)
    return tuple(good), tuple(problems)


def _read(file: Path) -> ReadableImage | UnreadableImageError:
    try:
        return readable(file)
    except UnreadableImageError as error:
        return error


def _look(
    image: AnnotatedImage, file: ReadableImage | UnreadableImageError
) -> tuple[NDArray[np.float64], list[Problem]]:
    """Boxes in pixels, clipped, and what is wrong with the image."""
    none = np.zeros((0, 4))
    if isinstance(file, UnreadableImageError):
        return none, [*image.problems, Problem(Kind.UNREADABLE, f"'{image.sample_id}': {file}")]
    size = file.size
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


def tell_converted(images: Sequence[tuple[str, str | None]], source: str) -> None:
    """Warn, in one line, of images that are not stored in RGB: what is done to them, how many, and the first ones.

    images: sample id and conversion of each; None where there is none.
    """
    of_kind: dict[str, list[str]] = defaultdict(list)
    for sample_id, conversion in images:
        if conversion is not None:
            of_kind[conversion].append(repr(sample_id))
    if of_kind:
        count = sum(map(len, of_kind.values()))
        summary = "; ".join(f"{len(ids):,} x {kind} ({listed(ids)})" for kind, ids in sorted(of_kind.items()))
        warnings.warn(f"{source}: {count:,} of {len(images):,} images are converted to RGB: {summary}", stacklevel=2)


def _tell_empty(empty: Sequence[AnnotatedImage], total: int, source: str) -> None:
    if not empty:
        return
    named = listed(repr(one.sample_id) for one in empty)
    missing = sum(one.missing_labels for one in empty)
    text = f"{source}: {len(empty):,} of {total:,} images have no objects ({named})"
    text += f", {missing:,} of them without a label file" if missing else ""
    text += "; there is no mAP" if len(empty) == total else ""
    warnings.warn(text, stacklevel=2)


def _summaries(problems: Sequence[Problem]) -> Iterator[str]:
    for kind in Kind:
        places = [" ".join(one.where.split()) for one in problems if one.kind is kind]
        if places:
            yield f"{len(places):,} x {kind} ({listed(places)})"


def _name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _name_box(box: NDArray[np.float64]) -> str:
    return "[" + ", ".join(f"{edge:.6g}" for edge in box) + "]"
