"""The norm balls: the adversary may move an input by at most `eps`, measured in a norm, within the data's bounds.

`eps` is in the data's own units. This module imports no torch; the geometry is in norm_ball_regions.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from robustbench_lab.errors import SkipCell, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Bounds, ThreatModel
    from robustbench_lab.threat_models.norm_ball_regions import L0Region, L1Region, L2Region, LinfRegion


@dataclass(frozen=True)
class NormBall:
    """What the threat models share: a budget, and what makes no sense as one."""

    norm: ClassVar[str]
    usual: ClassVar[str] = "8/255"
    """An example of a budget, for messages."""
    eps: float

    def check(self, bounds: Bounds) -> None:  # noqa: ARG002  (the other limits depend on the shape as well)
        """Raise UsageError unless `eps` is a finite number above 0."""
        named = f"{self.norm} eps={self.eps:g}"
        if not math.isfinite(self.eps):
            raise UsageError(f"{named} is not finite: give a number above 0, such as {self.usual}")
        if self.eps <= 0:
            raise UsageError(f"{named}: eps must be above 0; the accuracy without an attack is clean_accuracy")


@dataclass(frozen=True)
class Linf(NormBall):
    """Every coordinate may move by at most `eps`."""

    norm: ClassVar[str] = "linf"

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError unless `eps` is above 0 and at most the width of the data's range."""
        super().check(bounds)
        if self.eps > bounds.width:
            wrong = f"linf eps={self.eps:g} is above the data's range {bounds.low:g}..{bounds.high:g}."
            scaled = self.eps / 255
            if scaled <= bounds.width:
                raise UsageError(f"{wrong} Did you mean {self.eps:g}/255 = {scaled:.3g}?")
            raise UsageError(f"{wrong} Give an eps of at most {bounds.width:g}.")

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> LinfRegion:  # noqa: ARG002
        """The region around clean inputs `[N, ...]`."""
        from robustbench_lab.threat_models.norm_ball_regions import LinfRegion

        return LinfRegion(clean, self.eps, bounds)


@dataclass(frozen=True)
class L2(NormBall):
    """The Euclidean length of the change is at most `eps`."""

    norm: ClassVar[str] = "l2"

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> L2Region:  # noqa: ARG002
        """The region around clean inputs `[N, ...]`."""
        from robustbench_lab.threat_models.norm_ball_regions import L2Region

        return L2Region(clean, self.eps, bounds)


@dataclass(frozen=True)
class L1(NormBall):
    """The absolute changes of all coordinates sum to at most `eps`."""

    norm: ClassVar[str] = "l1"

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> L1Region:  # noqa: ARG002
        """The region around clean inputs `[N, ...]`."""
        from robustbench_lab.threat_models.norm_ball_regions import L1Region

        return L1Region(clean, self.eps, bounds)


@dataclass(frozen=True)
class L0(NormBall):
    """At most `eps` coordinates change, each to any value within the bounds.

    A coordinate is one input value: of an image, one channel of one pixel. So count sigma-zero (Cinà et al. 2025) and
    AttackBench; work that counts pixels has budgets up to three times smaller on RGB images.
    """

    norm: ClassVar[str] = "l0"
    usual: ClassVar[str] = "24"

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError unless `eps` is a whole number of at least 1."""
        super().check(bounds)
        if self.eps != int(self.eps):
            raise UsageError(f"l0 eps={self.eps:g}: eps counts the values that may change; give a whole number, from 1")

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> L0Region:  # noqa: ARG002
        """The region around clean inputs `[N, ...]`."""
        from robustbench_lab.threat_models.norm_ball_regions import L0Region

        return L0Region(clean, self.eps, bounds)


def unlimited(threat_model: ThreatModel) -> ThreatModel:
    """The same norm without a budget, for attacks that look for the nearest adversarial input."""
    if not isinstance(threat_model, NormBall):
        raise SkipCell("a minimum-norm attack needs a threat model that is a norm: linf, l2, l1 or l0")
    return replace(threat_model, eps=math.inf)
