"""Images and boxes from Pascal VOC's XML files, one for each image."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from rbl_detection_data.annotations import AnnotatedImage, Kind, LabelledBox, Problem
from rbl_detection_data.checking import OnError
from rbl_detection_data.detection_images import DetectionImages, detection_images
from rbl_detection_data.letterbox import Size
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.image_files import SUFFIXES
from robustbench_lab.plugin_tools.local_files import existing_folder

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's own, in their usual order."""


class _FormError(Exception):
    """Why an XML file is no annotation."""


def voc(
    path: str,
    split: str | None = None,
    images: str | None = None,
    classes: list[str] | None = None,
    size: Size = 640,
    on_error: OnError = "refuse",
) -> DetectionImages:
    """The images and boxes below `path`: a folder as `VOC2012`, or any folder of XML files.

    split: a list in `ImageSets/Main`, such as `val`; without it every XML file counts. images: the images' folder; by
    default `JPEGImages`, or that of the XML files. classes: names in the order of their labels; by default VOC's 20.
    size: the canvas, a side or [height, width]. on_error: `refuse`, or `skip` to leave out images with a problem.
    Objects marked `difficult` are crowds: neither to be found nor false alarms. Raises UsageError.
    """
    root = existing_folder(path, "voc")
    source = f"voc '{path}'"
    annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
    beside = root / "JPEGImages" if (root / "JPEGImages").is_dir() else annotations
    folder = beside if images is None else existing_folder(images, "voc: images")
    files = sorted(annotations.glob("*.xml")) if split is None else _split(root, annotations, split, source)
    if not files:
        raise UsageError(f"{source}: no XML files in '{annotations}'")
    names = list(CLASSES) if classes is None else classes
    numbers = {name: label for label, name in enumerate(names)}
    if len(numbers) < len(names) or not names:
        raise UsageError(f"{source}: classes must be names, each given once")
    found = [_image(file, folder, numbers) for file in files]
    ids = [one.sample_id for one in found]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise UsageError(f"{source}: several XML files are about '{twice}'")
    return detection_images(found, names, size=size, on_error=on_error, source=source)


def _split(root: Path, annotations: Path, split: str, source: str) -> list[Path]:
    """The XML files that `ImageSets/Main/<split>.txt` names, one a line."""
    lists = {one.stem: one for one in (root / "ImageSets" / "Main").glob("*.txt")}
    if split not in lists:
        raise UsageError(f"{source}: there is no split '{split}' in ImageSets/Main.{did_you_mean(split, lists)}")
    names = [line.split()[0] for line in lists[split].read_text(encoding="utf-8").splitlines() if line.strip()]
    return [annotations / f"{Path(name).name}.xml" for name in dict.fromkeys(names)]


def _image(file: Path, folder: Path, numbers: dict[str, int]) -> AnnotatedImage:
    try:
        tree = _parsed(file)
        size = _size(tree)
    except _FormError as error:
        named = folder / f"{file.stem}.jpg"
        return AnnotatedImage(named.name, named, (), problems=(Problem(Kind.FORM, f"'{file.name}': {error}"),))
    name = _file_name(tree, file, folder)
    objects, problems = [], []
    for position, one in enumerate(tree.findall("object"), start=1):
        where = f"object {position} of '{file.name}'"
        class_name = (one.findtext("name") or "").strip()
        corners = _corners(one)
        if corners is None:
            problems.append(Problem(Kind.FORM, f"{where}: bndbox needs xmin, ymin, xmax and ymax"))
        elif class_name not in numbers:
            problems.append(Problem(Kind.CLASS, f"{where}: {class_name[:40]!r}; name all with classes=[...]"))
        else:
            difficult = (one.findtext("difficult") or "0").strip() == "1"
            objects.append(LabelledBox(corners, numbers[class_name], difficult, where))
    problems += _given_twice(objects)
    return AnnotatedImage(name, folder / name, tuple(objects), size, problems=tuple(problems))


def _parsed(file: Path) -> Any:
    """The root element. A document type is refused: with it entities could be declared that grow without end."""
    try:
        tree = defusedxml.ElementTree.parse(file, forbid_dtd=True).getroot()
    except FileNotFoundError:
        raise _FormError("there is no such file") from None
    except DefusedXmlException as error:
        raise _FormError("it declares a document type or entities, which are refused") from error
    except (defusedxml.ElementTree.ParseError, ValueError, LookupError, OSError) as error:
        raise _FormError(f"not an XML file ({' '.join(str(error).split())[:80]})") from error
    if tree.tag != "annotation":
        raise _FormError(f"the root element is {tree.tag[:40]!r}, not 'annotation'")
    return tree


def _size(tree: Any) -> tuple[int, int] | None:
    """Width and height; None where they are absent or 0, as some tools write them."""
    texts = [tree.findtext(f"size/{side}") or "0" for side in ("width", "height")]
    try:
        width, height = (int(float(text)) for text in texts)
    except (ValueError, OverflowError):
        raise _FormError(f"its size is {' x '.join(text.strip()[:20] for text in texts)}") from None
    return (width, height) if width > 0 and height > 0 else None


def _file_name(tree: Any, file: Path, folder: Path) -> str:
    """As the XML file says, without folders; where that is no file there, an image of the XML file's own name."""
    said = Path((tree.findtext("filename") or "").strip()).name
    if said and "\0" not in said and (folder / said).is_file():
        return said
    of_stem = [f"{file.stem}{suffix}" for suffix in sorted(SUFFIXES)]
    return next((one for one in of_stem if (folder / one).is_file()), said or f"{file.stem}.jpg")


def _corners(one: Any) -> tuple[float, float, float, float] | None:
    """VOC counts pixels from 1 and includes the last, so the left and upper edges lie one further out."""
    try:
        left, top, right, bottom = (float(one.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
    except (TypeError, ValueError):
        return None
    return left - 1, top - 1, right, bottom


def _given_twice(objects: Sequence[LabelledBox]) -> Iterator[Problem]:
    seen = set()
    for one in objects:
        key = (one.corners, one.label)
        if key in seen:
            yield Problem(Kind.DUPLICATE, one.where)
        seen.add(key)
