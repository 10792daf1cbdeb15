"""Images and boxes from YOLO folders: a text file beside each image, in a folder `labels` beside `images`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rbl_detection_data.annotations import AnnotatedImage, Kind, LabelledBox, Problem
from rbl_detection_data.checking import OnError
from rbl_detection_data.detection_images import DetectionImages, detection_images
from rbl_detection_data.letterbox import Size
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.image_files import images_below
from robustbench_lab.plugin_tools.local_files import existing_file, listed

COLUMNS = 5
"""Class, then the centre's x and y, width and height as shares of the image's sides."""


def yolo(path: str, split: str = "val", size: Size = 640, on_error: OnError = "refuse") -> DetectionImages:
    """The images and boxes that a `dataset.yaml`, or the one YAML file in the folder `path`, names for `split`.

    The file gives `names` and for each split a folder of images, several, or a text file that lists images, relative
    to its `path` (by default, and where that is relative, to where it lies itself). size: the canvas, a side or
    [height, width]. on_error: `refuse`, or `skip` to leave out images with a problem. An image without a label file has
    no objects. Raises UsageError.
    """
    file = _yaml_file(path)
    source = f"yolo '{path}'"
    content = _read(file, source)
    names = _names(content, source)
    root = (file.parent / str(content.get("path") or ".")).resolve()
    files = list(_split_images(content, split, root, source))
    labels = {image: _label_file(image) for image in files}
    if not any(label.is_file() for label in labels.values()):
        raise UsageError(f"{source}: no label files; that of '{files[0]}' should be '{labels[files[0]]}'")
    found = [_image(image, label, len(names), root) for image, label in labels.items()]
    return detection_images(found, names, size=size, on_error=on_error, source=source)


def _yaml_file(path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return existing_file(path, "yolo")
    found = sorted(one for one in folder.iterdir() if one.suffix in (".yaml", ".yml") and one.is_file())
    if len(found) != 1:
        there = f"there are {listed(one.name for one in found)}" if found else "there is none"
        raise UsageError(f"yolo: the folder '{path}' must hold one YAML file with the classes and splits; {there}")
    return found[0]


def _read(file: Path, source: str) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{source}: not a YAML file ({' '.join(str(error).split())[:100]})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{source}: names: and val: are needed, as in a YOLO dataset.yaml")
    return content


def _names(content: Mapping[str, Any], source: str) -> list[str]:
    """Class names by number: a list, or a mapping from 0 on."""
    names = content.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UsageError(f"{source}: names: must list the classes, or map 0, 1, 2, ... to them")
    if content.get("nc", len(names)) != len(names):
        raise UsageError(f"{source}: nc: is {content['nc']!r}, but names: has {len(names)} classes")
    return [str(name) for name in names]


def _split_images(content: Mapping[str, Any], split: str, root: Path, source: str) -> Iterator[Path]:
    """Every image of a split, each once."""
    splits = [key for key in ("train", "val", "test") if content.get(key)]
    if split not in splits:
        raise UsageError(f"{source}: there is no split '{split}'.{did_you_mean(split, splits)}")
    places = content[split] if isinstance(content[split], list) else [content[split]]
    found: set[Path] = set()
    for place in places:
        there = root / str(place)
        if there.is_dir():
            found.update(images_below(there))
        elif there.is_file():
            found.update(_listed_images(there, source))
        else:
            raise UsageError(f"{source}: {split}: there is no '{there}'; set path: to the data's folder")
    if not found:
        raise UsageError(f"{source}: {split}: no images")
    yield from sorted(found)


def _listed_images(file: Path, source: str) -> Iterator[Path]:
    """Images in a text file, one a line, relative to where it lies."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: '{file}' is neither a folder nor a text file that lists images") from error
    return (file.parent / line.strip() for line in lines if line.strip())


def _label_file(image: Path) -> Path:
    """The last folder `images` on the way becomes `labels`; without one the text file lies beside the image."""
    parts = list(image.parts[:-1])
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts, f"{image.stem}.txt")


def _image(image: Path, label_file: Path, classes: int, root: Path) -> AnnotatedImage:
    name = image.relative_to(root).as_posix() if image.is_relative_to(root) else image.as_posix()
    objects, problems = [], []
    missing = not label_file.is_file()
    try:
        text = "" if missing else label_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return AnnotatedImage(name, image, (), problems=(Problem(Kind.FORM, f"'{label_file.name}': not a text file"),))
    lines = [line.split() for line in text.splitlines()]
    times = Counter(tuple(line) for line in lines if line)
    for number, line in enumerate(lines, start=1):
        where = f"line {number} of '{label_file.name}'"
        if not line:
            continue
        if times[tuple(line)] > 1:
            problems.append(Problem(Kind.DUPLICATE, where))
        numbers = _numbers(line)
        if numbers is None:
            problems.append(Problem(Kind.FORM, f"{where}: {len(line)} columns, not {COLUMNS} numbers"))
        elif not (numbers[0].is_integer() and 0 <= numbers[0] < classes):
            problems.append(Problem(Kind.CLASS, f"{where}: {line[0][:20]}"))
        else:
            objects.append(LabelledBox(_corners(*numbers[1:]), int(numbers[0]), False, where))
    return AnnotatedImage(name, image, tuple(objects), shares=True, missing_labels=missing, problems=tuple(problems))


def _numbers(line: list[str]) -> list[float] | None:
    if len(line) != COLUMNS:
        return None
    try:
        return [float(one) for one in line]
    except ValueError:
        return None


def _corners(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Centre and sides to xyxy."""
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
