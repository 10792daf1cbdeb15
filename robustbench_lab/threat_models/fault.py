"""What happens to measured series without an adversary: faults of sensors, clocks and transmission.

This module imports no torch; the geometry is in series_regions/faulty.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from robustbench_lab.errors import UsageError
from robustbench_lab.threat_models.natural import SEVERITIES
from robustbench_lab.threat_models.series_regions.channels import Of

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Bounds
    from robustbench_lab.threat_models.series_regions.faulty import Faulty


@dataclass(frozen=True)
class Fault:
    """Faults of severity `eps`, a whole number from 1 to 5, in what was measured: series and past covariates.

    What is known ahead, such as a calendar, is not measured. The kinds of faults are the attack's.
    """

    norm: ClassVar[str | None] = None
    eps: float
    of: Of = "all"
    """What has the faults: the series that are forecast, their past covariates, or both."""

    def check(self, bounds: Bounds) -> None:  # noqa: ARG002 (severities are the same for all data)
        """Raise UsageError unless `eps` is one of the five severities."""
        if self.eps not in SEVERITIES:
            raise UsageError(f"fault eps={self.eps:g}: eps is the severity; give a whole number from 1 to 5")

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> Faulty:
        """The region around inputs `[N, L, C]` with the targets of task `forecasting`. Raises SkipCell."""
        from robustbench_lab.tasks.forecasting import Role
        from robustbench_lab.threat_models.series_regions.channels import ROLES, chosen, history_steps, limits, spread
        from robustbench_lab.threat_models.series_regions.faulty import Faulty

        unit = spread("fault", clean, targets)
        measured = chosen("fault", self.of, targets, tuple(role for role in ROLES[self.of] if role is not Role.KNOWN))
        history = history_steps(clean, targets)
        reach = clean.new_ones(clean.shape).bool() if measured is None else measured.expand(clean.shape).clone()
        reach[:, history:] = False
        return Faulty(clean, unit, reach, *limits(clean, bounds, targets), history)
