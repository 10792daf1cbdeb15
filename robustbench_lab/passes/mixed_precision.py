"""A model that computes in 16 bits where PyTorch deems it safe, for the search; its successes are confirmed in 32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MixedPrecision(nn.Module):
    """A model under `torch.autocast` in bfloat16. Predictions are float32 again."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)

    def forward(self, x: Tensor) -> Any:
        """Inputs `[N, ...]` float32 to the model's prediction."""
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            prediction = self.model(x)
        return _in_float32(prediction)


def _in_float32(prediction: Any) -> Any:
    if isinstance(prediction, Tensor):
        return prediction.float() if prediction.is_floating_point() else prediction
    if hasattr(prediction, "in_float32"):
        return prediction.in_float32()
    if isinstance(prediction, dict):
        return {key: _in_float32(value) for key, value in prediction.items()}
    return [_in_float32(part) for part in prediction]
