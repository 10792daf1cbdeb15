"""What a detector returns for a batch: candidates with gradient, the detections they come to, and its training loss.

An adapter is a `torch.nn.Module` whose `forward` takes images `[B, C, H, W]` in [0, 1] and returns a `DetectorOutput`.
Resizing and normalisation belong inside it, and boxes are in the pixels of the images it was given.

    class MyDetector(nn.Module):
        def forward(self, images):
            boxes, logits = self.net((images - MEAN) / STD)      # [B, A, 4] xyxy in pixels, [B, A, K]
            return DetectorOutput.from_candidates(boxes, logits, training_loss=partial(my_loss, boxes, logits))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robustbench_lab.errors import SkipCell
from robustbench_lab.tasks.boxes import keep_best
from robustbench_lab.tasks.suppression_input import SuppressionInput

MOST_DETECTIONS = 300
"""Kept of an image, the highest scores first. COCO's evaluation looks at 100 of each class."""

WORKING_SCORE = 0.5
"""A detection of at least this score is reported."""

Detections = dict[str, Tensor]
"""`boxes` `[B, D, 4]` float32 xyxy in pixels, `scores` `[B, D]` float32 in (0, 1] in falling order, `labels` `[B, D]`
int64 from 0. D is `MOST_DETECTIONS`; places without a detection have score 0, label -1 and an empty box."""

TrainingLoss = Callable[[Tensor, Tensor], Tensor]
"""Boxes `[B, M, 4]` and labels `[B, M]` (-1: no object) to the loss of each image, `[B]`, with its graph."""


@dataclass(frozen=True)
class DetectorOutput:
    """One forward pass over B images."""

    detect: Callable[[], Detections]
    """The deployed pipeline's detections, after its score threshold and non-maximum suppression; needs no gradient."""
    candidates: Tensor | None = None
    """`[B, A, 4]`: boxes of all anchors, cells, proposals or queries, before any of them is suppressed."""
    logits: Tensor | None = None
    """`[B, A, K]`: for each of these and each class the log-odds that the class is there. Of a softmax with a
    background class they are `log p - log(1 - p)` (`log_odds`)."""
    training_loss: TrainingLoss | None = None
    """The loss the detector is trained with, of each image by itself, in eval mode: no dropout, batch statistics
    frozen, nothing drawn at random."""
    features: Tensor | None = None
    """`[B, F]`: what the backbone makes of each image, for attacks that are to transfer."""
    suppression: SuppressionInput | None = None
    """Which of the candidates go to non-maximum suppression; None: nobody knows, or nothing is suppressed."""

    @classmethod
    def from_candidates(
        cls,
        candidates: Tensor,
        logits: Tensor,
        *,
        training_loss: TrainingLoss | None = None,
        least_score: float = 0.05,
        most_overlap: float = 0.5,
        features: Tensor | None = None,
    ) -> DetectorOutput:
        """The output of a detector whose detections are its candidates after class-wise suppression.

        least_score: below it a candidate is no detection. most_overlap: the IoU above which the lower score goes.
        """
        boxes, odds = candidates.detach(), logits.detach()

        def detect() -> Detections:
            return suppressed(boxes, odds.sigmoid(), least_score, most_overlap)

        return cls(detect, candidates, logits, training_loss, features, SuppressionInput(least_score))

    @cached_property
    def detections(self) -> Detections:
        """What the detector reports, padded."""
        with torch.no_grad():
            return self.detect()

    def suppression_count(self) -> Tensor | None:
        """How many candidates of each image go to suppression, int64 `[B]`; None where that cannot be told."""
        if self.suppression is None or self.logits is None:
            return None
        return self.suppression.count(self.logits)

    def with_gradient(self) -> tuple[Tensor, Tensor]:
        """Candidates and logits. Raises SkipCell where the detector is a black box."""
        if self.candidates is None or self.logits is None:
            raise SkipCell("the detector gives detections only, no candidates: no gradient can be had from it")
        return self.candidates, self.logits

    def loss_of(self, boxes: Tensor, labels: Tensor) -> Tensor:
        """Its training loss for these objects, `[B]`. Raises SkipCell where it has none."""
        if self.training_loss is None:
            raise SkipCell("the detector has no training loss: take another objective, or an attack without gradients")
        return self.training_loss(boxes, labels)

    def detach(self) -> DetectorOutput:
        """The same without the graph; a training loss has no meaning then."""
        parts = (self.candidates, self.logits, self.features)
        boxes, logits, features = (None if one is None else one.detach() for one in parts)
        return DetectorOutput(self.detect, boxes, logits, features=features, suppression=self.suppression)

    def in_float32(self) -> DetectorOutput:
        """The same with candidates and losses in float32, after a pass in mixed precision."""
        loss = self.training_loss
        parts = (self.candidates, self.logits, self.features)
        boxes, logits, features = (None if one is None else one.float() for one in parts)
        in_float32 = None if loss is None else lambda boxes, labels: loss(boxes, labels).float()
        return DetectorOutput(self.detect, boxes, logits, in_float32, features, self.suppression)


def suppressed(boxes: Tensor, scores: Tensor, least_score: float, most_overlap: float) -> Detections:
    """Candidates `[B, A, 4]` with scores `[B, A, K]` to detections, by class-wise greedy suppression.

    A candidate can be a detection of several classes. Of each image the `MOST_DETECTIONS` highest scores compete, and
    more where these are all reports: a flood about one place must not hide reports elsewhere.
    """
    flat = torch.where(scores > least_score, scores, 0).flatten(1)
    compete = MOST_DETECTIONS
    found = _suppressed_best(boxes, flat, compete, most_overlap)
    reports = (flat >= WORKING_SCORE).sum(1)
    crowded = reports > compete
    while bool(crowded.any()):
        compete *= 2
        more = _suppressed_best(boxes[crowded], flat[crowded], compete, most_overlap)
        for name, values in more.items():
            found[name][crowded] = values
        crowded = crowded & (reports > compete) & (found["scores"] == 0).any(1)
    return found


def _suppressed_best(boxes: Tensor, flat: Tensor, compete: int, most_overlap: float) -> Detections:
    """Detections from the highest scores of each image. flat: scores `[B, A * K]`, 0 where there is no detection."""
    classes = flat.shape[1] // max(boxes.shape[1], 1)
    best, place = flat.topk(min(compete, flat.shape[1]), dim=1)
    most = int((best > 0).sum(1).max())
    best, place = best[:, :most], place[:, :most]
    taken = boxes.gather(1, (place // classes)[:, :, None].expand(-1, -1, 4))
    labels = place % classes
    kept = keep_best(taken, best, labels, most_overlap)
    return arranged(taken, torch.where(kept, best, 0), labels)


def arranged(boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    """Detections `[B, D, 4]`, `[B, D]`, `[B, D]` in falling order of score, cut or padded to `MOST_DETECTIONS`.

    A score of 0 or NaN is no detection.
    """
    scores = scores.float().nan_to_num(0.0)
    missing = MOST_DETECTIONS - scores.shape[1]
    if missing > 0:
        scores = torch.nn.functional.pad(scores, (0, missing))
        labels = torch.nn.functional.pad(labels, (0, missing))
        boxes = torch.nn.functional.pad(boxes, (0, 0, 0, missing))
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    scores, order = scores[:, :MOST_DETECTIONS], order[:, :MOST_DETECTIONS]
    there = scores > 0
    labels = torch.where(there, labels.gather(1, order), -1)
    boxes = boxes.float().gather(1, order[:, :, None].expand(-1, -1, 4)) * there[:, :, None]
    return {"boxes": boxes, "scores": scores, "labels": labels}


def padded(images: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Detections:
    """Boxes `[D, 4]`, scores `[D]` and labels `[D]` of each image, in any order, to detections."""
    boxes, scores, labels = zip(*images, strict=True)
    pad = torch.nn.utils.rnn.pad_sequence
    return arranged(
        pad(list(boxes), batch_first=True), pad(list(scores), batch_first=True), pad(list(labels), batch_first=True)
    )


def log_odds(logits: Tensor, background: int) -> Tensor:
    """Softmax logits `[B, A, K + 1]` to the log-odds of each class, `[B, A, K]`, without the background's column."""
    logs = logits.log_softmax(-1)
    logs = torch.cat([logs[..., :background], logs[..., background + 1 :]], dim=-1)  # half the time of an index
    return logs - torch.log1p(-logs.exp().clamp_max(1 - 1e-6))
