"""What an attack has done to single images of a detector, at its working point: found, lost, mislabelled, invented.

mAP alone hides much of it: an attack that removes 4 of 10 objects can leave mAP nearly where it was, because scores
sink and their order stays. So rates at a fixed score stand beside it, as in Thys et al. 2019 (recall at a fixed
threshold, https://arxiv.org/abs/1904.08653) and TOG (Chow et al. 2020, https://arxiv.org/abs/2004.04320).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robustbench_lab.tasks.boxes import area, intersection, iou
from robustbench_lab.tasks.detector_output import WORKING_SCORE, Detections

WORKING_IOU = 0.5
"""A detection that overlaps an object by at least this much is about that object (Everingham et al. 2010)."""

IOUS, IOU_BEFORE_FIRST, IOU_STEP = 10, 0.45, 0.05
"""COCO's thresholds: 0.5, 0.55, ... 0.95."""


@dataclass(frozen=True)
class Scene:
    """The objects of B images, M places each."""

    boxes: Tensor
    """`[B, M, 4]`."""
    labels: Tensor
    """int64 `[B, M]`; -1 where there is no object to be found."""
    crowd: Tensor
    """Bool `[B, M]`: a crowd's box. It is neither to be found, nor is what lies in it a false alarm."""

    @property
    def real(self) -> Tensor:
        """Bool `[B, M]`: the objects to be found."""
        return self.labels >= 0


@dataclass(frozen=True)
class Matches:
    """Detections held against the objects of their images."""

    scene: Scene
    everything: Detections

    @cached_property
    def detections(self) -> Detections:
        """Without the places that no image uses: D of them."""
        most = int((self.everything["scores"] > 0).sum(1).max())
        return {name: values[:, :most] for name, values in self.everything.items()}

    @cached_property
    def reported(self) -> Tensor:
        """Detections at the working score or above, bool `[B, D]`."""
        return self.detections["scores"] >= WORKING_SCORE

    @cached_property
    def _overlap(self) -> Tensor:
        return iou(self.detections["boxes"], self.scene.boxes)

    @cached_property
    def _about(self) -> Tensor:
        """Whether a detection covers an object, bool `[B, D, M]`."""
        return (
            (self._overlap >= WORKING_IOU) & self.scene.real[:, None, :] & (self.detections["scores"] > 0)[:, :, None]
        )

    @cached_property
    def _right(self) -> Tensor:
        """Whether a detection covers an object and has its label, bool `[B, D, M]`."""
        return self._about & (self.detections["labels"][:, :, None] == self.scene.labels[:, None, :])

    @cached_property
    def found(self) -> Tensor:
        """Objects covered by a reported detection of their label, bool `[B, M]`."""
        return (self._right & self.reported[:, :, None]).any(1)

    @cached_property
    def covered(self) -> Tensor:
        """Objects covered by a reported detection of any label, bool `[B, M]`."""
        return (self._about & self.reported[:, :, None]).any(1)

    @cached_property
    def _invented(self) -> Tensor:
        """Detections that cover no object of their label, nor lie in a crowd, bool `[B, D]`."""
        invented = (self.detections["scores"] > 0) & ~self._right.any(2)
        if not bool(self.scene.crowd.any()):
            return invented
        inside = intersection(self.detections["boxes"], self.scene.boxes)
        share = inside / area(self.detections["boxes"])[:, :, None].clamp_min(1e-9)
        return invented & ~((share >= WORKING_IOU) & self.scene.crowd[:, None, :]).any(2)

    @property
    def false_alarms(self) -> Tensor:
        """Reported detections that cover no object, or give it a wrong label, bool `[B, D]`."""
        return self._invented & self.reported

    @property
    def false_positives(self) -> Tensor:
        """How many of them each image has, `[B]`."""
        return self.false_alarms.sum(1)

    @property
    def fabricated(self) -> Tensor:
        """Reported detections that cover no object at all, `[B]`."""
        return (self._invented & self.reported & ~self._about.any(2)).sum(1)

    def confidence(self, *, right: bool = True) -> Tensor:
        """The highest score that covers each object with its label, or with another, `[B, M]`; 0 where none does."""
        return self._surest[0] if right else self._highest(self._about & ~self._right)

    def invented_scores(self) -> Tensor:
        """Summed scores of all detections that cover no object of their label, `[B]`."""
        return torch.where(self._invented, self.detections["scores"], 0).sum(1)

    def precision(self) -> Tensor:
        """What each object adds to its image's average precision, 0 to 1, `[B, M]`.

        The precision of the image's detections down to the surest one that finds the object, times the share of COCO's
        ten IoU thresholds that this one reaches.
        """
        if self.detections["scores"].shape[1] == 0:
            return torch.zeros_like(self.scene.boxes[..., 0])
        scores = self.detections["scores"][:, :, None]
        surest, place = self._surest
        overlap = self._overlap.gather(1, place[:, None]).squeeze(1)
        reached = ((overlap - IOU_BEFORE_FIRST) / IOU_STEP + 1e-4).floor().clamp(0, IOUS) / IOUS
        invented_above = (self._invented[:, :, None] & (scores > surest[:, None])).sum(1)
        found_above = ((surest[:, None] >= surest[:, :, None]) & (surest > 0)[:, None]).sum(2)
        return torch.where(surest > 0, reached * found_above / (found_above + invented_above).clamp_min(1), 0)

    def label_confidence(self, labels: Tensor) -> Tensor:
        """The highest score that covers each object with the label given for it (int64 `[B, M]`), `[B, M]`."""
        wanted = self._about & (self.detections["labels"][:, :, None] == labels[:, None, :])
        return self._highest(wanted)

    @cached_property
    def _surest(self) -> tuple[Tensor, Tensor]:
        """The highest score that covers each object with its label, and the place of that detection, `[B, M]` both."""
        if self._right.shape[1] == 0:
            nothing = torch.zeros_like(self.scene.boxes[..., 0])
            return nothing, nothing.long()
        # Detections stand in falling order of score: the first that is right.
        there, place = self._right.max(1)
        surest = self.detections["scores"].gather(1, place)
        return torch.where(there, surest, 0), place

    def _highest(self, which: Tensor) -> Tensor:
        """Of some detections of each object, bool `[B, D, M]`, the highest score, `[B, M]`; 0 where there is none."""
        if which.shape[1] == 0:
            return torch.zeros_like(self.scene.boxes[..., 0])
        return torch.where(which, self.detections["scores"][:, :, None], 0).amax(1)


def scene_of(targets: dict[str, Tensor]) -> Scene:
    """The targets of a detection dataset (`boxes`, `labels`, `crowd`) as a scene; crowds are not to be found."""
    crowd = targets["crowd"] & (targets["labels"] >= 0)
    return Scene(targets["boxes"], targets["labels"].masked_fill(crowd, -1), crowd)
