"""Patches whose places are given: at a fixed place of every image, or on each annotated object.

This module imports no torch; the geometry is in window_geometry.py and painted_region.py. A patch that may be anywhere
is in patch.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.threat_models.natural import require_finite
from robustbench_lab.threat_models.patch import Patch

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Bounds
    from robustbench_lab.threat_models.painted_region import PaintedRegion

ClassNumber = Annotated[int, Field(ge=0)]
"""A class of the dataset, from 0."""


@dataclass(frozen=True)
class PlacedPatch:
    """All values within one square window may change, at the same place of every image, to any value within the bounds.

    So DPatch (Liu et al. 2018, https://arxiv.org/abs/1806.02299: the upper left corner, the defaults here) and Lee &
    Kolter 2019 (https://arxiv.org/abs/1906.11897) attack detectors. `eps` is the window's share of the image's area:
    the side is the largest whole number of pixels within it.
    """

    norm: ClassVar[str | None] = None
    eps: float
    x: float = 0.0
    """Where the window lies across the image: 0, at its left edge, to 1, at its right edge."""
    y: float = 0.0
    """0, at the top, to 1, at the bottom."""

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError unless `eps` and the place are shares and the data's range is finite."""
        if not 0 < self.eps < 1:
            raise UsageError(
                f"placed-patch eps={self.eps:g}: eps is a share of the image's area; give a number above 0 and below 1"
            )
        _check_place("placed-patch", self.x, self.y)
        require_finite("placed-patch", bounds)

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> PaintedRegion:  # noqa: ARG002
        """The region around clean images `[N, C, H, W]`."""
        from robustbench_lab.threat_models.natural_regions import require_images

        require_images(clean)
        height, width = clean.shape[2:]
        side = Patch(self.eps).side(height, width)
        window = [round(self.y * (height - side)), round(self.x * (width - side)), side]
        return _painted(clean, self.eps, bounds, clean.new_tensor(window).long().expand(len(clean), 1, 3))


@dataclass(frozen=True)
class ObjectPatch:
    """All values within a square on each annotated object may change, to any value within the bounds.

    So Thys, Van Ranst & Goedemé 2019 (https://arxiv.org/abs/1904.08653) attack person detectors. `eps` is the square's
    share of the area of the object's box: the side is the largest whole number of pixels within it. Objects on which
    that is no pixel have no patch, and neither have crowds. What reaches beyond the image is cut off.
    """

    norm: ClassVar[str | None] = None
    eps: float
    labels: Sequence[ClassNumber] | None = None
    """Classes whose objects carry a patch; None: all."""
    x: float = 0.5
    """Where the patch's centre lies across the box: 0, its left edge, to 1, its right edge."""
    y: float = 0.5
    """0, its top, to 1, its bottom."""

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError unless `eps` and the place are shares and the data's range is finite."""
        if not 0 < self.eps <= 1:
            raise UsageError(
                f"object-patch eps={self.eps:g}: eps is a share of the box's area; give a number above 0, up to 1"
            )
        _check_place("object-patch", self.x, self.y)
        require_finite("object-patch", bounds)

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> PaintedRegion:
        """The region around clean images `[N, C, H, W]` with the targets of task `detection`."""
        from robustbench_lab.threat_models.natural_regions import require_images
        from robustbench_lab.threat_models.window_geometry import windows_on

        require_images(clean)
        boxes, chosen = annotated_objects(targets, self.labels, "object-patch")
        return _painted(clean, self.eps, bounds, windows_on(boxes, chosen, self.eps, self.x, self.y))


def annotated_objects(
    targets: Any, labels: Sequence[int] | None, asked_by: str, *, crowds: bool = False
) -> tuple[Tensor, Tensor]:
    """The boxes `[N, M, 4]` of detection targets, and which of them are objects of these classes, bool `[N, M]`.

    labels: None: all classes. crowds: whether they count as objects. Raises SkipCell where targets have no boxes.
    """
    if not isinstance(targets, dict) or not {"boxes", "labels"} <= targets.keys():
        raise SkipCell(f"{asked_by} needs annotated objects: it is for detection datasets")
    boxes, names = targets["boxes"], targets["labels"]
    chosen = names >= 0
    if not crowds and "crowd" in targets:
        chosen = chosen & ~targets["crowd"]
    if labels is not None:
        chosen = chosen & (names[..., None] == names.new_tensor(list(labels))).any(-1)
    return boxes, chosen


def _painted(clean: Tensor, eps: float, bounds: Bounds, windows: Tensor) -> PaintedRegion:
    from robustbench_lab.threat_models.painted_region import PaintedRegion
    from robustbench_lab.threat_models.window_geometry import inside_windows

    return PaintedRegion(clean, eps, bounds, windows, inside_windows(windows, *clean.shape[2:]))


def _check_place(name: str, x: float, y: float) -> None:
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise UsageError(f"{name}: x={x:g}, y={y:g}: both are shares of the way across and down; give numbers 0 to 1")
