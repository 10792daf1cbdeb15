"""The adversary repaints one square of an image (Brown et al., "Adversarial patch", 2017,
https://arxiv.org/abs/1712.09665). This module imports no torch; the geometry is in patch_region.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.threat_models.natural import require_finite

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Bounds
    from robustbench_lab.threat_models.patch_region import PatchRegion


@dataclass(frozen=True)
class Patch:
    """All values within one square window may change, anywhere in the image, to any value within the bounds.

    `eps` is the window's share of the image's area: the side is the largest whole number of pixels within it.
    """

    norm: ClassVar[str | None] = None
    eps: float

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError unless `eps` is above 0 and below 1 and the data's range is finite."""
        if not 0 < self.eps < 1:
            raise UsageError(
                f"patch eps={self.eps:g}: eps is a share of the image's area; give a number above 0 and below 1"
            )
        require_finite("patch", bounds)

    def side(self, height: int, width: int) -> int:
        """The window's side in pixels. Raises SkipCell where `eps` is less than one pixel."""
        # A share such as 1/25 of 25 pixels must not lose its pixel to rounding.
        side = math.isqrt(math.floor(self.eps * height * width * (1 + 1e-6)))
        if side < 1:
            raise SkipCell(f"patch eps={self.eps:g} is less than one pixel of an image {height}x{width}")
        return min(side, height, width)

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> PatchRegion:  # noqa: ARG002
        """The region around clean images `[N, C, H, W]`."""
        from robustbench_lab.threat_models.natural_regions import require_images
        from robustbench_lab.threat_models.patch_region import PatchRegion

        require_images(clean)
        return PatchRegion(clean, self.eps, bounds, self.side(clean.shape[2], clean.shape[3]))
