"""What an adversary wants of a segmentation network: as many pixels as possible of another class.

More damage is worse, so no sample is ever done: attacks run their steps out, and the input with the most damage is
kept. An image counts as broken when at least 99% of the pixels that count are as the adversary wants them, the share
from which ALMA prox counts an image as attacked (Rony et al., CVPR 2023, https://arxiv.org/abs/2206.07179); DAG stops
at all of them (Xie et al. 2017, https://arxiv.org/abs/1703.08603).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from pydantic import Field
from torch import Tensor

from robustbench_lab.errors import SkipCell, UsageError, did_you_mean
from robustbench_lab.tasks.class_masks import IGNORED, predicted_classes

Passes = Annotated[int, Field(ge=1)]
Labels = Literal["truth", "self"]
"""Whose classes the adversary works against: the annotated ones, or those the model itself gives the clean image (an
adversary that has no annotations)."""

BROKEN = 0.99
"""Share of the pixels from which an image is broken."""


def share_of(pixels: Tensor, mask: Tensor) -> Tensor:
    """Of the pixels that count in a mask the share, or the mean, `[B]`; 0 where none counts. pixels: `[B, H, W]`."""
    counts = mask != IGNORED
    return (pixels * counts).sum((1, 2)) / counts.sum((1, 2)).clamp_min(1)


def cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of each pixel in nats, `[B, H, W]`; 0 where it does not count."""
    return F.cross_entropy(logits, mask.long(), reduction="none", ignore_index=IGNORED)


def still_right(logits: Tensor, mask: Tensor) -> Tensor:
    """The pixels whose class is the mask's, bool `[B, H, W]`, without gradient."""
    return predicted_classes(logits.detach()) == mask


def weighted_cross_entropy(logits: Tensor, mask: Tensor, wrong_weight: float) -> Tensor:
    """Mean over pixels of cross-entropy, times `wrong_weight` where wrong and 1 - that where right, `[B]`.

    SegPGD (Gu et al. 2022, https://arxiv.org/abs/2207.12391), with its lambda as `wrong_weight`.
    """
    weight = torch.where(still_right(logits, mask), 1 - wrong_weight, wrong_weight)
    return share_of(weight * cross_entropy(logits, mask), mask)


def plain_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over pixels of cross-entropy, `[B]`."""
    return share_of(cross_entropy(logits, mask), mask)


def masked_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """The same over pixels that are still right (Croce et al. 2024), `[B]`."""
    return weighted_cross_entropy(logits, mask, 0.0)


def jensen_shannon(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over pixels of the Jensen-Shannon divergence from the class (Croce et al. 2024), 0 to ln 2, `[B]`.

    With p the class's probability: (p ln p - (1 + p) ln (1 + p)) / 2 + ln 2, for the other classes' terms add up so.
    """
    log_p = -cross_entropy(logits, mask)
    p = log_p.exp()
    divergence = (p * log_p - (1 + p) * torch.log1p(p)) / 2 + torch.log(torch.tensor(2.0)).to(p)
    return share_of(divergence, mask)


def masked_spherical(logits: Tensor, mask: Tensor) -> Tensor:
    """Minus the cosine between a pixel's logits and its class, over pixels still right (Croce et al. 2024), `[B]`."""
    own = _own(F.normalize(logits, dim=1), mask)
    return share_of(torch.where(still_right(logits, mask), -own, 0), mask)


def cosine_weighted(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy times the cosine between probabilities and class (CosPGD, Agnihotri et al. 2024), `[B]`."""
    cosine = _own(F.normalize(logits.detach().softmax(1), dim=1), mask)
    return share_of(cosine * cross_entropy(logits, mask), mask)


def dense_adversary(logits: Tensor, mask: Tensor) -> Tensor:
    """The best wrong logit minus the right one, over pixels still right (DAG, Xie et al. 2017, eq. 1), `[B]`.

    There the wrong class of a pixel is drawn at random once; here it is the likeliest at each query.
    """
    place = _place(mask)
    gain = logits.scatter(1, place, float("-inf")).amax(1) - logits.gather(1, place).squeeze(1)
    return share_of(torch.where(still_right(logits, mask), gain, 0), mask)


LOSSES = {
    "ce": plain_cross_entropy,
    "masked-ce": masked_cross_entropy,
    "js": jensen_shannon,
    "masked-spherical": masked_spherical,
    "cospgd": cosine_weighted,
    "dag": dense_adversary,
}


@dataclass(frozen=True)
class SegmentationObjective:
    """What the objectives share. The goal is a mask, `[B, H, W]`, 255 where a pixel does not count."""

    eot: Passes | None = None
    """Forward passes that every query takes the mean of; None: 1, and 20 on a randomized model."""

    @property
    def stop_on_success(self) -> bool:
        """Never: one more pixel is worse."""
        return False

    def judged(self, prediction: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Success and damage, `[B]` each: the class of every pixel is looked up once for both."""
        damage = share_of(self._reached(predicted_classes(prediction), goal), goal)
        return damage >= BROKEN, damage

    def succeeded(self, prediction: Tensor, goal: Tensor) -> Tensor:
        """Whether at least 99% of the pixels are as the adversary wants them, bool `[B]`."""
        return self.judged(prediction, goal)[0]

    def damage(self, prediction: Tensor, goal: Tensor) -> Tensor:
        """Share of the pixels that are as the adversary wants them, `[B]`."""
        return self.judged(prediction, goal)[1]

    def _reached(self, classes: Tensor, goal: Tensor) -> Tensor:
        """Which pixels these are, bool `[B, H, W]`, where they are of these classes."""
        raise NotImplementedError


@dataclass(frozen=True)
class Untargeted(SegmentationObjective):
    """Every pixel of any class but its own."""

    labels: Labels = "truth"

    def prepare(self, clean_prediction: Tensor, targets: Tensor) -> Tensor:
        """The masks, or what the model makes of the clean images; pixels that do not count do not in either."""
        if self.labels == "truth":
            return targets
        own = predicted_classes(clean_prediction).clamp_min(0).to(targets.dtype)
        return own.masked_fill(targets == IGNORED, IGNORED)

    def loss(self, name: str | None, prediction: Tensor, goal: Tensor) -> Tensor:
        """`ce` (the default), `masked-ce`, `js`, `masked-spherical`, `cospgd` or `dag`, `[B]`: see `LOSSES`."""
        if name not in (None, *LOSSES):
            raise UsageError(f"there is no loss '{name}' for segmentation.{did_you_mean(str(name), LOSSES)}")
        return LOSSES[name or "ce"](prediction, goal)

    def _reached(self, classes: Tensor, goal: Tensor) -> Tensor:
        """The pixels that are wrong."""
        return classes != goal


@dataclass(frozen=True)
class Targeted(SegmentationObjective):
    """Every pixel of one chosen class. Pixels that are of it do not count."""

    target: Annotated[int, Field(ge=0, lt=IGNORED)] = 0

    def prepare(self, clean_prediction: Tensor, targets: Tensor) -> Tensor:
        """The chosen class, where a pixel counts and is of another one."""
        if self.target >= clean_prediction.shape[1]:
            raise SkipCell(f"target class {self.target} is outside the model's 0..{clean_prediction.shape[1] - 1}")
        aside = (targets == IGNORED) | (targets == self.target)
        return torch.full_like(targets, self.target).masked_fill(aside, IGNORED)

    def loss(self, name: str | None, prediction: Tensor, goal: Tensor) -> Tensor:
        """`ce`: cross-entropy towards the chosen class, downwards, `[B]`."""
        if name not in (None, "ce"):
            raise UsageError(f"there is no loss '{name}' for targeted segmentation: use loss='ce'")
        return -plain_cross_entropy(prediction, goal)

    def _reached(self, classes: Tensor, goal: Tensor) -> Tensor:
        """The pixels that have become the chosen class."""
        return classes == goal


def _place(mask: Tensor) -> Tensor:
    """Where each pixel's own class is among the logits, int64 `[B, 1, H, W]`; 0 where it does not count."""
    return mask.long().masked_fill(mask == IGNORED, 0)[:, None]


def _own(values: Tensor, mask: Tensor) -> Tensor:
    """The value of each pixel's own class, `[B, H, W]`, of `[B, K, H, W]`."""
    return values.gather(1, _place(mask)).squeeze(1)
