"""Images and boxes from a COCO JSON file."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rbl_detection_data.annotations import AnnotatedImage, Kind, LabelledBox, Problem
from rbl_detection_data.checking import OnError
from rbl_detection_data.detection_images import DetectionImages, detection_images
from rbl_detection_data.letterbox import Size
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.local_files import existing_file, existing_folder


def coco(path: str, images: str | None = None, size: Size = 640, on_error: OnError = "refuse") -> DetectionImages:
    """The images and annotations of the file `path`, as COCO's `instances_val2017.json`.

    images: the folder that the file names in it are relative to; by default the JSON file's own. size: the canvas, a
    side or [height, width]. on_error: `refuse`, or `skip` to leave out images with a problem. Labels number the
    categories from 0 in the order of their ids; objects with `iscrowd` are crowds. Raises UsageError.
    """
    file = existing_file(path, "coco")
    folder = file.parent if images is None else existing_folder(images, "coco: images")
    source = f"coco '{path}'"
    content = _read(file, source)
    entries = {key: _entries(content, key, source) for key in ("images", "annotations", "categories")}
    names = _categories(entries["categories"], source)
    numbers = {category: label for label, category in enumerate(names)}
    listed = _images(entries["images"], source)
    of_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in entries["annotations"]:
        of_image[_whole(annotation.get("image_id"))].append(annotation)
    twice = {one for one, count in Counter(_ids(entries["annotations"])).items() if count > 1}
    astray = [
        Problem(Kind.NO_IMAGE, f"{_called(one)}: image_id {_short(repr(one.get('image_id')))}")
        for image_id, ones in of_image.items()
        if image_id not in listed
        for one in ones
    ]
    found = [_image(entry, of_image.get(key, ()), numbers, twice, folder) for key, entry in listed.items()]
    return detection_images(found, list(names.values()), size=size, on_error=on_error, source=source, astray=astray)


def _read(file: Path, source: str) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source}: not a JSON file ({str(error)[:100]})") from error
    if not isinstance(content, dict):
        kind = "a list, as files of detections are" if isinstance(content, list) else type(content).__name__
        raise UsageError(f"{source}: {kind}; an object with images, annotations and categories is needed")
    return content


def _entries(content: Mapping[str, Any], key: str, source: str) -> list[Mapping[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise UsageError(f"{source}: '{key}' must be a list of objects")
    if not entries and key != "annotations":
        raise UsageError(f"{source}: '{key}' is empty")
    return entries


def _categories(entries: Sequence[Mapping[str, Any]], source: str) -> dict[int, str]:
    """Category ids to names, in the order of the ids."""
    found: dict[int, str] = {}
    for entry in entries:
        number, name = _whole(entry.get("id")), entry.get("name")
        if number < 0 or not isinstance(name, str):
            raise UsageError(f"{source}: a category needs a whole number as id and a name, not {_short(entry)}")
        if number in found:
            raise UsageError(f"{source}: two categories have the id {number}")
        found[number] = name
    return dict(sorted(found.items()))


def _images(entries: Sequence[Mapping[str, Any]], source: str) -> dict[int, Mapping[str, Any]]:
    """Image ids to entries; neither ids nor file names occur twice."""
    found: dict[int, Mapping[str, Any]] = {}
    names: set[str] = set()
    for entry in entries:
        number, name = _whole(entry.get("id")), entry.get("file_name")
        if number < 0 or not isinstance(name, str) or not name:
            raise UsageError(f"{source}: an image needs a whole number as id and a file_name, not {_short(entry)}")
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise UsageError(f"{source}: file_name {name!r} is not below the images' folder")
        if number in found or name in names:
            raise UsageError(f"{source}: two images have the id {number} or the file_name {name!r}")
        found[number] = entry
        names.add(name)
    return found


def _image(
    entry: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    numbers: Mapping[int, int],
    twice: set[int],
    folder: Path,
) -> AnnotatedImage:
    name = str(entry["file_name"])
    objects, problems = [], []
    for one in annotations:
        called = f"{_called(one)} of '{name}'"
        category, crowd = _whole(one.get("category_id")), one.get("iscrowd", 0)
        corners = _corners(one.get("bbox"))
        if _whole(one.get("id", 0)) in twice:
            problems.append(Problem(Kind.DUPLICATE, called))
        if corners is None or crowd not in (0, 1):
            problems.append(Problem(Kind.FORM, f"{called}: bbox {_short(one.get('bbox'))}"))
        elif category not in numbers:
            problems.append(Problem(Kind.CLASS, f"{called}: category_id {_short(repr(one.get('category_id')))}"))
        else:
            objects.append(LabelledBox(corners, numbers[category], bool(crowd), called))
    width, height = _whole(entry.get("width")), _whole(entry.get("height"))
    size = (width, height) if width > 0 and height > 0 else None
    return AnnotatedImage(Path(name).as_posix(), folder / name, tuple(objects), size, problems=tuple(problems))


def _corners(box: Any) -> tuple[float, float, float, float] | None:
    """COCO's x, y, width, height to xyxy; None where it is not four numbers."""
    if not isinstance(box, list) or len(box) != 4:
        return None
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in box):
        return None
    left, top, width, height = (_number(one) for one in box)
    return left, top, left + width, top + height


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON knows whole numbers of any length
        return math.inf


def _ids(annotations: Sequence[Mapping[str, Any]]) -> list[int]:
    return [number for one in annotations if (number := _whole(one.get("id"))) >= 0]


def _whole(value: Any) -> int:
    """A number that may serve as an id or a length; -1 where the value is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else -1


def _called(annotation: Mapping[str, Any]) -> str:
    return f"annotation {_short(annotation.get('id', 'without id'))}"


def _short(value: Any) -> str:
    """On one line, and not too long."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
