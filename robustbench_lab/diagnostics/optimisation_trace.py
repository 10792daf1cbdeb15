"""What a gradient attack's own queries show about whether it could work. Costs no pass of the model."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustbench_lab.records import Finding, Severity, Share

WINDOW = 10
"""Steps at the end over which the loss must have settled (Pintor et al. 2022, indicator I4)."""
SETTLED = 0.05
"""Rise in the window, as a share of the whole rise, above which a search had not settled; a finding is suspect where
the mean over the unbroken samples is above it, too."""
MOSTLY = 0.5
"""Share of the samples of a search."""


@dataclass
class _Starts:
    """Samples whose gradient was useless where a search began: the most of any search."""

    zero: int = 0
    bad: int = 0


class OptimisationTrace:
    """Loss and gradient of the samples still open, restart by restart.

    Only the last restart's samples that stayed unbroken to the end are judged for convergence: for the others the
    search has found what it looked for.
    """

    def __init__(self) -> None:
        self.steps = self._begun = 0
        self._starts = _Starts()
        self._begins = self._judged = True
        self._is_part = self._rose = False
        self._first: Tensor | None = None
        self._best: Tensor | None = None
        self._recent: deque[Tensor] = deque(maxlen=WINDOW + 1)

    def part(self) -> OptimisationTrace:
        """For searches on some of the samples: what their first gradients show counts here, their loss does not."""
        part = OptimisationTrace()
        part._starts, part._is_part = self._starts, True
        return part

    def restart(self, *, judged: bool = True) -> None:
        """A new search begins; where it is not judged, the last one that was still stands."""
        self._begins, self._judged = True, judged and not self._is_part
        self._note_rise()
        self._rose |= not judged  # one that is not looked at may have climbed
        if self._judged:
            self.steps = 0
            self._first = self._best = None
            self._recent.clear()

    @property
    def begins(self) -> bool:
        """Whether the next gradients are the first of a search."""
        return self._begins

    def observe(self, losses: Tensor, gradients: Tensor | None) -> None:
        """One query for loss `[A]` and gradient `[A, ...]`, which may be left out where no search begins.

        Of the gradient the largest size of each sample counts, `[A, 1]` says as much.
        """
        if self._begins and gradients is not None:
            size = gradients.flatten(1).abs().amax(1)
            self._starts.zero = max(self._starts.zero, int((size == 0).sum()))
            self._starts.bad = max(self._starts.bad, int((~size.isfinite()).sum()))
            self._begins = False
        if not self._judged:
            return
        if self.steps == 0:
            self._first = self._best = losses
            self._begun = len(losses)
        else:
            assert self._best is not None  # noqa: S101 (set in the first step)
            self._best = torch.maximum(self._best, losses)
        self._recent.append(self._best)
        self.steps += 1

    def keep(self, index: Tensor, of: int) -> None:
        """Some of `of` samples are done; `index` `[B]` are the others.

        Nothing where they were dropped before: searches side by side drop samples from what all of them share.
        """
        if self._first is None or self._best is None or len(self._first) != of:
            return
        self._note_rise()
        self._first = self._first.index_select(0, index)
        self._best = self._best.index_select(0, index)
        recent = [past.index_select(0, index) for past in self._recent]
        self._recent.clear()
        self._recent.extend(recent)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that was observed, for `restore`: tensors, and facts that JSON can hold."""
        facts = {"steps": self.steps, "zero": self._starts.zero, "bad": self._starts.bad}
        facts |= {"begins": self._begins, "judged": self._judged, "rose": self._rose, "begun": self._begun}
        if self._first is None or self._best is None:
            return {}, facts
        # Copies: these may be one tensor under several names.
        return {"first": self._first.clone(), "best": self._best.clone(), "recent": torch.stack([*self._recent])}, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from what `state` returned for the same open samples."""
        self.steps, self._begins, self._judged = facts["steps"], facts["begins"], facts["judged"]
        self._starts.zero, self._starts.bad, self._rose = facts["zero"], facts["bad"], facts.get("rose", False)
        self._begun = facts.get("begun", 0)
        self._first, self._best = tensors.get("first"), tensors.get("best")
        self._recent.clear()
        self._recent.extend(tensors["recent"] if tensors else ())

    def findings(self) -> list[Finding]:
        """Gradients of zero or none at the start; too few steps; a loss that never rises, or still does at the end."""
        found = []
        if zero := self._starts.zero:
            text = "the gradient is exactly zero where the search starts"
            found.append(Finding("zero-gradient", Severity.SUSPECT, text, float(zero)))
        if bad := self._starts.bad:
            text = "the gradient is NaN or infinite where the search starts"
            found.append(Finding("bad-gradient", Severity.SUSPECT, text, float(bad)))
        if self._first is None or self._best is None or len(self._first) == 0:
            return found
        if self.steps <= WINDOW:
            steps = "1 step is" if self.steps == 1 else f"{self.steps} steps are"
            text = f"{steps} too few to tell whether the search had settled: use more than {WINDOW}"
            found.append(Finding("few-steps", Severity.SUSPECT, text))
            return found
        self._note_rise()
        flat = 0.0 if self._rose else float((self._best <= self._first).sum())
        text = "the loss is nowhere higher than where the search starts: a step against the gradient, or a flat loss?"
        share = Share(flat, self._begun, MOSTLY, above=Severity.SUSPECT, below=None)
        found.append(Finding("loss-never-rises", Severity.INFO, text, flat, share))
        late = self._late_rise()
        text = f"over {SETTLED:.0%} of the loss came in the last {WINDOW} steps: use more, or a falling step size"
        share = Share(float(late.sum()), len(late), SETTLED, above=Severity.SUSPECT, below=Severity.INFO)
        found.append(Finding("loss-still-rises", Severity.INFO, text, float((late > SETTLED).sum()), share))
        return found

    def _note_rise(self) -> None:
        """Of any search: one that begins where another has ended may find nothing higher."""
        if self._rose or self._first is None or self._best is None or len(self._first) == 0:
            return
        self._rose = bool((self._best > self._first).float().mean() >= MOSTLY)

    def _late_rise(self) -> Tensor:
        """The rise in the window as a share of the whole rise, for each sample still open, `[A]`."""
        assert self._first is not None and self._best is not None  # noqa: S101, PT018 (the caller has looked)
        whole = (self._best - self._first).clamp_min(1e-12)
        return (self._best - self._recent[0]) / whole
