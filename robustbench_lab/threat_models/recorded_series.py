"""The threat model of an adversary who changes what is stored: one change of the recorded series for all windows.

This module imports no torch; the geometry is in series_regions/recorded.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from robustbench_lab.errors import SkipCell
from robustbench_lab.threat_models.series import Channels, Series
from robustbench_lab.threat_models.series_regions.channels import Of

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Bounds
    from robustbench_lab.threat_models.series_regions.recorded import Recorded


@dataclass(frozen=True)
class RecordedSeries:
    """Every value of the recorded series may move by at most `eps` standard deviations of its series, once for all.

    Histories overlap: in `series` each may see another value at the same time, here they agree. What one change does is
    counted for all windows, also where it does less than nothing; its spec says so (`shared`).
    """

    norm: ClassVar[str] = "linf"
    eps: float
    channels: Channels | None = None
    """As in `series`, like the others."""
    of: Of = "all"
    relative: bool = False

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError unless `eps` is a finite number above 0."""
        self._alone.check(bounds)

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> Recorded:
        """The region around inputs `[N, L, C]` with the targets of task `forecasting`. Raises SkipCell."""
        from robustbench_lab.threat_models.series_regions.box import SeriesBox
        from robustbench_lab.threat_models.series_regions.recorded import Recorded, places

        box = self._alone.around(clean, bounds, targets)
        if "start" not in targets:
            raise SkipCell("recorded-series needs to know where windows lie: the targets hold no 'start'")
        assert isinstance(box, SeriesBox)  # noqa: S101 (of a linf budget without more rules)
        return Recorded(box, places(clean, targets))

    @property
    def _alone(self) -> Series:
        """What each window may become by itself."""
        return Series(self.eps, channels=self.channels, of=self.of, relative=self.relative)
