"""A norm ball of which the adversary reaches some pixels only. This module imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.threat_models.bound_patches import ClassNumber, annotated_objects
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from robustbench_lab.contracts import Bounds
    from robustbench_lab.threat_models.masked_region import MaskedRegion

Norm = Literal["linf", "l2", "l1"]
Share = Annotated[float, Field(ge=0, le=1)]
BALLS: dict[str, type[Linf | L2 | L1]] = {"linf": Linf, "l2": L2, "l1": L1}
WHITE = 128
"""The grey level of a mask's file from which on a pixel may change."""


@dataclass(frozen=True)
class Mask:
    """The values of some pixels may move by at most `eps`, measured in a norm; the others stay as they are.

    The pixels are given by one of `box`, `file` and `where`.
    """

    eps: float
    norm: Norm = "linf"
    box: tuple[Share, Share, Share, Share] | None = None
    """Left, top, right and bottom of a rectangle, as shares of the image's width and height."""
    file: str | None = None
    """An image of the inputs' size, white where pixels may change and black elsewhere."""
    where: Literal["objects", "background"] | None = None
    """Inside the boxes of the annotated objects, crowds included, or outside all of them."""
    labels: Sequence[ClassNumber] | None = None
    """With `where`: the classes of objects that count; None: all."""

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError unless the norm allows the budget, and the pixels are given in one way that can be read."""
        self._ball.check(bounds)
        if sum(way is not None for way in (self.box, self.file, self.where)) != 1:
            raise UsageError("mask: give one of box=[left, top, right, bottom], file='mask.png' and where='objects'")
        if self.labels is not None and self.where is None:
            raise UsageError("mask: labels goes with where='objects' or where='background'")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise UsageError(f"mask box={list(self.box)}: give left < right and top < bottom")
        if self.file is not None:
            _ = self._drawn

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> MaskedRegion:
        """The region around clean images `[N, C, H, W]`; `where` needs the targets of task `detection`."""
        from robustbench_lab.threat_models.masked_region import MaskedRegion
        from robustbench_lab.threat_models.natural_regions import require_images

        require_images(clean)
        if self.where is not None:
            pixels = self._around_objects(clean, targets)
        elif self.file is not None:
            pixels = self._of_file(clean)
        else:
            pixels = self._of_box(clean)
        return MaskedRegion(self._ball.around(clean, bounds), pixels)

    @property
    def _ball(self) -> Linf | L2 | L1:
        return BALLS[self.norm](self.eps)

    # ------------------------------------------------------------ which pixels, bool [N, 1, H, W]

    def _around_objects(self, clean: Tensor, targets: Any) -> Tensor:
        from robustbench_lab.threat_models.window_geometry import inside_boxes

        boxes, chosen = annotated_objects(targets, self.labels, f"mask(where='{self.where}')", crowds=True)
        inside = inside_boxes(boxes, chosen, *clean.shape[2:])
        return inside if self.where == "objects" else ~inside

    def _of_box(self, clean: Tensor) -> Tensor:
        import torch

        height, width = clean.shape[2:]
        left, top, right, bottom = self.box or (0.0, 0.0, 1.0, 1.0)
        pixels = torch.zeros(1, 1, height, width, dtype=torch.bool, device=clean.device)
        pixels[:, :, round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
        if not bool(pixels.any()):
            raise SkipCell(f"mask box={[left, top, right, bottom]} holds no pixel of an image {height}x{width}")
        return pixels.expand(len(clean), 1, height, width)

    def _of_file(self, clean: Tensor) -> Tensor:
        import torch

        height, width = clean.shape[2:]
        if self._drawn.shape != (height, width):
            size = "x".join(map(str, self._drawn.shape))
            raise SkipCell(f"mask: {self.file} is {size}, the images are {height}x{width}: draw it at their size")
        return torch.from_numpy(self._drawn).to(clean.device).expand(len(clean), 1, height, width)

    @cached_property
    def _drawn(self) -> NDArray[np.bool_]:
        """The file's pixels `[H, W]`. Raises UsageError where it cannot be read, or is black all over."""
        import numpy as np
        from PIL import Image

        from robustbench_lab.plugin_tools.image_files import UNREADABLE

        try:
            with Image.open(self.file or "") as image:
                drawn = np.asarray(image.convert("L")) >= WHITE
        except UNREADABLE as error:
            raise UsageError(f"mask: cannot read {self.file}: {error}") from error
        if not drawn.any():
            raise UsageError(f"mask: {self.file} is black all over: draw white where pixels may change")
        return drawn
