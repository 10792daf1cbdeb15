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
        prediction = self.model(x)
        for tensor in _tensors(prediction)[:1]:
            if tensor.requires_grad:
                tensor.register_hook(lambda _gradient: self._count_backward(samples))  # type: ignore[no-untyped-call]
        return prediction

    def _count_backward(self, samples: int) -> None:
        self.backward_passes += samples


def _tensors(prediction: Any) -> list[Tensor]:
    if isinstance(prediction, Tensor):
        return [prediction]
    if isinstance(prediction, dict):
        prediction = list(prediction.values())
    if isinstance(prediction, list | tuple):
        return [tensor for part in prediction for tensor in _tensors(part)]
    return []
