"""A model behind a change of its input."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Preprocessed(nn.Module):
    """`model(change(x))`."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.change = change

    def forward(self, x: Tensor) -> Any:
        """Inputs `[N, ...]` in the data's bounds to the model's prediction."""
        return self.model(self.change(x))
