"""Forward and backward passes, counted by the core and never by the attack."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class PassCounter(nn.Module):
    """A model that counts: one pass is one sample through the model once.

    Wrapped libraries are handed this module, so their passes are counted as well; a backward pass is counted when a
    gradient arrives at the model's output.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forward_passes = 0
        self.backward_passes = 0
        self.train(model.training)  # a new module begins in training mode, whatever it holds

    def forward(self, x: Tensor) -> Any:
        """Inputs `[N, ...]` to the model's prediction."""
        samples = len(x)
        self.forward_passes += samples
        if x.requires_grad:
            x = x.view_as(x)  # one for each pass: a hook on the input itself would count those of others, too
            x.register_hook(lambda _gradient: self._count_backward(samples))  # type: ignore[no-untyped-call]
        return self.model(x)

    def through(self, x: Tensor) -> Any:
        """As `forward`, for a caller that counts the backward pass itself, which costs no hook."""
        self.forward_passes += len(x)
        return self.model(x)

    def _count_backward(self, samples: int) -> None:
        self.backward_passes += samples
