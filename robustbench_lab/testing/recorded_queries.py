"""Every input that an attack shows a model: whether what it does to a sample depends on the samples beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ROUNDING = 1e-6
"""Difference of two inputs, relative to the largest value, up to which they are the same input."""
MOST_COMPARED = 256
"""Of the inputs without an exact counterpart: enough to tell, and few enough to compare with all others."""


class RecordedQueries(nn.Module):
    """A model that keeps every input it is given, in order."""

    def __init__(self, model: nn.Module, size: int) -> None:
        """size: D, the values of an input."""
        super().__init__()
        self.model = model
        self._batches = [torch.empty(0, size)]
        self.train(model.training)

    def forward(self, x: Tensor) -> Any:
        """Inputs `[N, ...]` to the model's prediction."""
        self._batches.append(x.detach().flatten(1).clone())
        return self.model(x)

    @property
    def inputs(self) -> Tensor:
        """All inputs so far, `[Q, D]`."""
        return torch.cat(self._batches)


def asks_otherwise(alone: Tensor, together: Tensor) -> bool:
    """Whether an attack shows the model an input for some samples alone that it does not show it for more of them.

    alone, together: all inputs of the two attacks, `[Q, D]` each, Q above 0 in `together`. An attack that treats every
    sample on its own asks the same of it in both, whatever else it asks for the others. Inputs that are equal up to
    rounding are the same.
    """
    known = {row.tobytes() for row in together.numpy()}
    unknown = [row for row in alone if row.numpy().tobytes() not in known][:MOST_COMPARED]
    tolerance = ROUNDING * float(together.abs().max())
    return any(not bool(((together - row).abs().amax(1) <= tolerance).any()) for row in unknown)
