"""What an adversary wants of a classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from pydantic import Field
from torch import Tensor

from robustbench_lab.errors import SkipCell, UsageError, did_you_mean

Passes = Annotated[int, Field(ge=1)]
Loss = Callable[[Tensor, Tensor], Tensor]


def margin(logits: Tensor, label: Tensor) -> Tensor:
    """`max_{i != y} z_i - z_y`, `[N]`: positive exactly where the label has lost (Carlini & Wagner 2017)."""
    own = logits.gather(1, label[:, None]).squeeze(1)
    others = logits.scatter(1, label[:, None], float("-inf")).amax(1)
    return others - own


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy in nats, `[N]`."""
    return F.cross_entropy(logits, label, reduction="none")


def difference_of_logits_ratio(logits: Tensor, label: Tensor) -> Tensor:
    """DLR loss, `[N]` (Croce & Hein 2020, eq. 6): the margin divided by the spread of the three largest logits."""
    if logits.shape[1] < 3:
        raise SkipCell("the dlr loss needs at least 3 classes: use loss='margin'")
    largest = logits.topk(3, dim=1).values
    return margin(logits, label) / (largest[:, 0] - largest[:, 2] + 1e-12)


def targeted_margin(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """`z_t - z_y`, `[N]`: positive exactly where the target is ahead of the label."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, label[:, None])).squeeze(1)


def targeted_difference_of_logits_ratio(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Targeted DLR loss, `[N]` (Croce & Hein 2020, eq. 7): the targeted margin divided by a spread of the logits.

    target: int64 `[N]`, the class to put ahead of the label.
    """
    if logits.shape[1] < 4:
        raise SkipCell("the targeted dlr loss needs at least 4 classes: use loss='targeted-cw'")
    largest = logits.topk(4, dim=1).values
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return targeted_margin(logits, label, target) / (spread + 1e-12)


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "margin": margin,
    "cw": margin,
    "dlr": difference_of_logits_ratio,
}


def _loss(name: str | None) -> Loss:
    if name is None:
        return cross_entropy
    if name not in LOSSES:
        raise UsageError(f"there is no loss '{name}' for classifiers.{did_you_mean(name, LOSSES)}")
    return LOSSES[name]


def _decision(logits: Tensor) -> Tensor:
    """The predicted class, `[N]`; -1 where a logit is NaN, because that is no decision."""
    return logits.argmax(1).masked_fill(logits.isnan().any(1), -1)


@dataclass(frozen=True)
class Untargeted:
    """Any class but the true one. The goal is the true label, int64 `[N]`."""

    stop_on_success: bool = True
    eot: Passes | None = None
    """Forward passes that every query takes the mean of; None: 1, and 20 on a randomized model."""

    def prepare(self, clean_prediction: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002 (the protocol's)
        """The true labels."""
        return targets

    def loss(self, name: str | None, prediction: Tensor, goal: Tensor) -> Tensor:
        """`ce` (the default), `margin` (which `cw` names as well) or `dlr`, `[N]`."""
        return _loss(name)(prediction, goal)

    def succeeded(self, prediction: Tensor, goal: Tensor) -> Tensor:
        """Whether another class is predicted, or none."""
        return _decision(prediction) != goal

    def damage(self, prediction: Tensor, goal: Tensor) -> Tensor:
        """The margin by which the true class has lost."""
        return margin(prediction, goal)


@dataclass(frozen=True)
class Targeted:
    """One chosen wrong class. The goal is that class, int64 `[N]`."""

    target: int | Literal["next", "least-likely", "second"] = "next"
    """A class number; `next`: true class + 1; `least-likely`, `second`: by the clean prediction."""
    stop_on_success: bool = True
    eot: Passes | None = None
    """Forward passes that every query takes the mean of; None: 1, and 20 on a randomized model."""

    def prepare(self, clean_prediction: Tensor, targets: Tensor) -> Tensor:
        """The class to reach for each sample. Samples of the chosen class itself aim at the next one."""
        classes = clean_prediction.shape[1]
        if classes < 2:
            raise SkipCell("a targeted objective needs at least 2 classes")
        following = (targets + 1) % classes
        if self.target == "next":
            return following
        if self.target in ("least-likely", "second"):
            sign = 1 if self.target == "second" else -1
            others = (sign * clean_prediction).scatter(1, targets[:, None], float("-inf"))
            return others.argmax(1)
        if not 0 <= int(self.target) < classes:
            raise SkipCell(f"target class {self.target} is outside the model's 0..{classes - 1}")
        chosen = torch.full_like(targets, int(self.target))
        return torch.where(chosen == targets, following, chosen)

    def loss(self, name: str | None, prediction: Tensor, goal: Tensor) -> Tensor:
        """The negative of the chosen loss towards the goal, `[N]`."""
        return -_loss(name)(prediction, goal)

    def succeeded(self, prediction: Tensor, goal: Tensor) -> Tensor:
        """Whether the goal's class is predicted."""
        return _decision(prediction) == goal

    def damage(self, prediction: Tensor, goal: Tensor) -> Tensor:
        """The margin by which the goal's class leads."""
        return -margin(prediction, goal)


def is_logits(prediction: Any) -> bool:
    """Whether a prediction has the form of a classifier's: a float tensor `[N, K]`."""
    return isinstance(prediction, Tensor) and prediction.ndim == 2 and prediction.is_floating_point()
