"""What a detector gives to non-maximum suppression, whose work a flood of candidates multiplies."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SuppressionInput:
    """The rule by which candidates go to suppression, before the detector cuts their number (if it does).

    It speaks of the classes that the dataset knows, as logits do: outputs of others go there uncounted.
    """

    least_score: float
    """Scores above it go there."""
    best_class_only: bool = False
    """A candidate goes there once, with the likeliest of its classes; else once for each class that scores enough."""

    def contenders(self, logits: Tensor) -> Tensor:
        """Of log-odds `[B, A, K]` those that can get there, `[B, P]`."""
        return logits.amax(2) if self.best_class_only else logits.flatten(1)

    def count(self, logits: Tensor) -> Tensor:
        """How many get there, int64 `[B]`."""
        return (self.contenders(logits.detach()).sigmoid() > self.least_score).sum(1)
