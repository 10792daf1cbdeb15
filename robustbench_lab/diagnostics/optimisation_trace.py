"""What a gradient attack's own queries show about whether it could work. Costs no pass of the model."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from robustbench_lab.records import Finding, Severity

WINDOW = 10
"""Steps at the end over which the loss must have settled (Pintor et al. 2022, indicator I4)."""
SETTLED = 0.05
"""Rise in the window, as a share of the whole rise, above which a search had not settled; a finding is suspect where
the mean over the unbroken samples is above it, too."""


class OptimisationTrace:
    """Loss and gradient of the samples still open, restart by restart.

    Only the last restart's samples that stayed unbroken to the end are judged for convergence: for the others the
    search has found what it looked for.
    """

    def __init__(self) -> None:
        self.zero_gradients = 0
        self.bad_gradients = 0
        self.steps = 0
        self._first: Tensor | None = None
        self._best: Tensor | None = None
        self._recent: deque[Tensor] = deque(maxlen=WINDOW + 1)

    def restart(self) -> None:
        """A new search begins."""
        self.steps = 0
        self._first = self._best = None
        self._recent.clear()

    def observe(self, losses: Tensor, gradients: Tensor) -> None:
        """One query for loss `[A]` and gradient `[A, ...]`."""
        if self.steps == 0:
            size = gradients.flatten(1).abs().amax(1)
            self.zero_gradients = max(self.zero_gradients, int((size == 0).sum()))
            self.bad_gradients = max(self.bad_gradients, int((~size.isfinite()).sum()))
            self._first = self._best = losses
        else:
            assert self._best is not None  # noqa: S101 (set in the first step)
            self._best = torch.maximum(self._best, losses)
        self._recent.append(self._best)
        self.steps += 1

    def keep(self, index: Tensor) -> None:
        """Some samples are done; `index` `[B]` are the others."""
        if self._first is None or self._best is None:
            return
        self._first = self._first.index_select(0, index)
        self._best = self._best.index_select(0, index)
        recent = [past.index_select(0, index) for past in self._recent]
        self._recent.clear()
        self._recent.extend(recent)

    def findings(self) -> list[Finding]:
        """Zero and non-finite gradients at the start; too few steps; a loss that still rises at the end."""
        found = []
        if self.zero_gradients:
            text = "the gradient is exactly zero where the search starts"
            found.append(Finding("zero-gradient", Severity.SUSPECT, text, float(self.zero_gradients)))
        if self.bad_gradients:
            text = "the gradient is NaN or infinite where the search starts"
            found.append(Finding("bad-gradient", Severity.SUSPECT, text, float(self.bad_gradients)))
        if self._first is None or len(self._first) == 0:
            return found
        if self.steps <= WINDOW:
            text = f"{self.steps} steps are too few to tell whether the search had settled: use more than {WINDOW}"
            found.append(Finding("few-steps", Severity.SUSPECT, text))
            return found
        late = self._late_rise()
        if unsettled := int((late > SETTLED).sum()):
            text = f"over {SETTLED:.0%} of the loss came in the last {WINDOW} steps: use more, or a falling step size"
            severity = Severity.SUSPECT if float(late.mean()) > SETTLED else Severity.INFO
            found.append(Finding("loss-still-rises", severity, text, float(unsettled)))
        return found

    def _late_rise(self) -> Tensor:
        """The rise in the window as a share of the whole rise, for each sample still open, `[A]`."""
        assert self._first is not None and self._best is not None  # noqa: S101, PT018 (the caller has looked)
        whole = (self._best - self._first).clamp_min(1e-12)
        return (self._best - self._recent[0]) / whole
