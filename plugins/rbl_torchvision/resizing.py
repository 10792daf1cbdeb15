"""torchvision's detectors resize inside: boxes to what the network sees, and back to pixels of the images given."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import clip_boxes_to_image

from robustbench_lab.plugin_tools.class_numbers import ClassNumbers, objects


def network_input(transform: Any, images: Tensor) -> ImageList:
    """What a detector's transform makes of images `[B, C, H, W]`.

    Where they have the network's own size there is nothing to resize, and all are normalised at once; torchvision
    takes them image by image, and interpolates even then.
    """
    height, width = images.shape[-2:]
    if transform.fixed_size != (width, height) or height % transform.size_divisible or width % transform.size_divisible:
        shrunk: ImageList = transform(list(images))[0]
        return shrunk
    return ImageList(transform.normalize(images), [(height, width)] * len(images))


@dataclass(frozen=True)
class Resizing:
    """What happens to a batch of B images of one size (height, width), which become another."""

    count: int
    size: tuple[int, int]
    inner: tuple[int, int]

    @classmethod
    def of(cls, images: Tensor, shrunk: ImageList) -> Self:
        """Images `[B, C, H, W]` as they were, and as the detector's transform made them."""
        height, width = images.shape[-2:]
        return cls(len(images), (height, width), shrunk.image_sizes[0])

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The size of each image."""
        return [self.size] * self.count

    def boxes_back(self, boxes: Tensor) -> Tensor:
        """`[B, A, 4]` in the network's pixels to those of the images, clipped to them as detections are."""
        clipped = clip_boxes_to_image(boxes, self.inner)
        back: Tensor = resize_boxes(clipped.flatten(0, 1), list(self.inner), list(self.size))
        return back.view_as(boxes)

    def targets(self, boxes: Tensor, labels: Tensor, classes: ClassNumbers) -> Iterator[dict[str, Tensor]]:
        """Boxes `[B, M, 4]` and labels `[B, M]` to torchvision's targets, image by image."""
        for box, label, kept in zip(boxes, labels, objects(boxes, labels), strict=True):
            inner = resize_boxes(box[kept], list(self.size), list(self.inner))
            yield {"boxes": inner, "labels": classes.own(label[kept])}
