"""Changes that happen to images without an adversary: common corruptions, and rotations with shifts.

This module imports no torch; the geometry is in natural_regions.py. Neither threat model is a norm: their regions have
no steepest direction, and serve attacks that make their candidates themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from robustbench_lab.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Bounds
    from robustbench_lab.threat_models.natural_regions import CorruptionRegion, SpatialRegion

SEVERITIES = range(1, 6)


@dataclass(frozen=True)
class Corruption:
    """Common corruptions of severity `eps`, a whole number from 1 to 5.

    Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR
    2019, https://arxiv.org/abs/1903.12261.
    """

    norm: ClassVar[str | None] = None
    eps: float

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError unless `eps` is one of the five severities and the data's range is finite."""
        if self.eps not in SEVERITIES:
            raise UsageError(f"corruption eps={self.eps:g}: eps is the severity; give a whole number from 1 to 5")
        require_finite("corruption", bounds)

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> CorruptionRegion:  # noqa: ARG002
        """The region around clean images `[N, C, H, W]`."""
        from robustbench_lab.threat_models.natural_regions import CorruptionRegion

        return CorruptionRegion(clean, bounds)


@dataclass(frozen=True)
class Spatial:
    """Images rotated about their centre and shifted; what comes in at the border is black (the lowest value).

    Rotated by up to `eps * max_rotation` degrees and shifted by up to `eps * max_translation` of each side; `eps=1`
    with the defaults is the threat model of Engstrom, Tran, Tsipras, Schmidt & Madry, "Exploring the landscape of
    spatial robustness", ICML 2019, https://arxiv.org/abs/1712.02779.
    """

    norm: ClassVar[str | None] = None
    eps: float
    max_rotation: float = 30.0
    """Degrees, either way."""
    max_translation: float = 0.1
    """Share of the image's height and width, either way."""

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError unless something may move, by at most half a turn and one side, and the range is finite."""
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise UsageError(f"spatial eps={self.eps:g}: eps scales rotation and translation; give a number above 0")
        if not 0 <= self.rotation <= 180:
            raise UsageError(f"spatial: eps * max_rotation is {self.rotation:g} degrees; it must be within 0 to 180")
        if not 0 <= self.translation <= 1:
            raise UsageError(f"spatial: eps * max_translation is {self.translation:g}; it must be within 0 to 1")
        if self.rotation == self.translation == 0:
            raise UsageError("spatial: max_rotation and max_translation are both 0, so nothing may change")
        require_finite("spatial", bounds)

    @property
    def rotation(self) -> float:
        """The largest rotation allowed, in degrees."""
        return self.eps * self.max_rotation

    @property
    def translation(self) -> float:
        """The largest shift allowed, as a share of the side."""
        return self.eps * self.max_translation

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> SpatialRegion:  # noqa: ARG002
        """The region around clean images `[N, C, H, W]`."""
        from robustbench_lab.threat_models.natural_regions import SpatialRegion

        return SpatialRegion(clean, bounds, self.rotation, self.translation)


def require_finite(name: str, bounds: Bounds) -> None:
    """Raise UsageError where a threat model needs a lowest and a highest value, and the data's range is open."""
    if not math.isfinite(bounds.width):
        raise UsageError(f"{name} needs data with a lowest and a highest value; this data's range is open")
