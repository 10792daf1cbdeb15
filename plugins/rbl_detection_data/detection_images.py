"""Images with boxes as a dataset of the task `detection`, read when asked for."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rbl_detection_data.annotations import AnnotatedImage, Problem
from rbl_detection_data.checking import CheckedImage, OnError, checked
from rbl_detection_data.letterbox import RULE, Letterbox, Size, canvas_of
from rbl_detection_data.rgb_images import UnreadableImageError, read_rgb
from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.image_arrays import UNIT
from robustbench_lab.provenance import file_sha256


@dataclass(frozen=True, eq=False)
class DetectionImages:
    """Images on one canvas with their boxes. Make one with `detection_images`, which checks them."""

    images: tuple[CheckedImage, ...]
    class_names: tuple[str, ...]
    canvas: tuple[int, int]
    """Width and height, in pixels."""
    problems: tuple[Problem, ...]
    """All that is wrong with what was left out."""
    source: str
    """What messages call the data."""
    bounds: Bounds = UNIT

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def sample_ids(self) -> Sequence[str]:
        """File names, below the images' folder, with forward slashes."""
        return [image.sample_id for image in self.images]

    @cached_property
    def revision(self) -> str:
        """SHA-256 of every image file, its boxes, labels and crowds, the classes, and how images are prepared.

        What an annotation file says beyond that does not count, nor do images that were left out.
        """
        digest = hashlib.sha256(f"{self.canvas} {RULE} {self.class_names}\n".encode())
        for image in sorted(self.images, key=lambda one: one.sample_id):
            digest.update(f"{image.sample_id}\0{len(image.boxes)}\0{file_sha256(image.file)}\n".encode())
            for array in (image.boxes, image.labels, image.crowd):
                digest.update(array.tobytes())
        return digest.hexdigest()

    def load(self, indices: Sequence[int]) -> Samples:
        """Inputs float32 `[n, 3, H, W]` in [0, 1]; targets `boxes`, `labels`, `crowd` (see the task `detection`).

        Targets are padded to the most objects that any image of the dataset has. Raises UsageError where a file has
        become unreadable.
        """
        chosen = [self.images[index] for index in indices]
        width, height = self.canvas
        inputs = torch.empty(len(chosen), 3, height, width)
        attackable = torch.zeros(len(chosen), 1, height, width, dtype=torch.bool)
        for place, image in enumerate(chosen):
            letterbox = Letterbox(image.size, self.canvas)
            inputs[place] = self._pixels(image, letterbox)
            across, down = letterbox.content
            attackable[place, :, :down, :across] = True
        return Samples(inputs, self._targets(chosen), attackable=None if bool(attackable.all()) else attackable)

    def _pixels(self, image: CheckedImage, letterbox: Letterbox) -> Tensor:
        try:
            upright = read_rgb(image.file)
        except UnreadableImageError as error:
            raise UsageError(f"{self.source}: cannot read '{image.file}': {error}") from error
        if upright.size != image.size:
            raise UsageError(f"{self.source}: '{image.file}' has changed its size since the data was opened")
        return torch.from_numpy(letterbox.place(upright)).permute(2, 0, 1).float().div_(255)

    def _targets(self, images: Sequence[CheckedImage]) -> dict[str, Tensor]:
        boxes = torch.zeros(len(images), self._most_objects, 4)
        labels = torch.full((len(images), self._most_objects), -1)
        crowd = torch.zeros(len(images), self._most_objects, dtype=torch.bool)
        for place, image in enumerate(images):
            here = slice(len(image.labels))
            boxes[place, here] = torch.from_numpy(Letterbox(image.size, self.canvas).to_canvas(image.boxes)).float()
            labels[place, here] = torch.from_numpy(image.labels)
            crowd[place, here] = torch.from_numpy(image.crowd)
        return {"boxes": boxes, "labels": labels, "crowd": crowd}

    @cached_property
    def _most_objects(self) -> int:
        return max(1, *(len(image.labels) for image in self.images))


def detection_images(
    images: Iterable[AnnotatedImage],
    class_names: Sequence[str],
    *,
    size: Size,
    on_error: OnError,
    source: str,
    astray: Iterable[Problem] = (),
) -> DetectionImages:
    """Check annotated images and make a dataset of them: see `checked`. Raises UsageError.

    They are put in the order of a hash of their sample id, so that the first N are a fixed random choice.
    """
    canvas = canvas_of(size, source)
    ordered = sorted(images, key=lambda one: hashlib.sha256(one.sample_id.encode()).digest())
    good, problems = checked(ordered, on_error, source, astray)
    return DetectionImages(good, tuple(class_names), canvas, problems, source)
