"""Means over several forward passes of a randomized model (expectation over transformation, Athalye et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lab.contracts import Objective

RANDOMIZED_EOT = 20
"""As in AutoAttack's version `rand` (Croce & Hein 2020)."""


def passes_per_query(objective: Objective, *, randomized: bool) -> int:
    """Forward passes that each query of an attack takes the mean of."""
    if objective.eot is not None:
        return objective.eot
    return RANDOMIZED_EOT if randomized else 1


class Mean:
    """The mean of several tuples of tensors, without a copy where there is one only."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: tuple[Tensor, ...] = ()

    def add(self, *tensors: Tensor) -> None:
        self._sums = tensors if not self._count else tuple(a + b for a, b in zip(self._sums, tensors, strict=True))
        self._count += 1

    def values(self) -> tuple[Tensor, ...]:
        return self._sums if self._count == 1 else tuple(total / self._count for total in self._sums)


def detached(prediction: Any) -> Any:
    """A prediction without its graph: a tensor, a list, a dict of these, or what has a `detach` of its own."""
    if hasattr(prediction, "detach"):
        return prediction.detach()
    if isinstance(prediction, dict):
        return {key: detached(value) for key, value in prediction.items()}
    return [detached(part) for part in prediction]


def mean_prediction(predictions: list[Any]) -> Any:
    """The mean where predictions are tensors; otherwise the last one, since sets of boxes have none."""
    import torch

    if len(predictions) > 1 and isinstance(predictions[0], torch.Tensor):
        return torch.stack(predictions).mean(0)
    return predictions[-1]
