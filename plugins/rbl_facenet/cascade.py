"""The three stages of MTCNN, one after the other, with the gradients that facenet-pytorch cuts.

Source: K. Zhang, Z. Zhang, Z. Li, Y. Qiao, Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks, 2016 (https://arxiv.org/abs/1604.02878). Steps and constants are those of facenet-pytorch's `detect_face`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from facenet_pytorch.models.utils.detect_face import (
    batched_nms_numpy,
    bbreg,
    generateBoundingBox,
    imresample,
    pad,
    rerec,
)
from torch import Tensor, nn
from torchvision.ops import nms

from robustbench_lab.plugin_tools.class_numbers import objects
from robustbench_lab.tasks.boxes import iou
from robustbench_lab.tasks.detector_output import DetectorOutput, padded

CROPS = 300
"""Of an image that count as candidates, in each of the later stages; the cascade itself has no limit."""
NOTHING = -50.0
"""Log-odds at the places of crops that an image does not have."""
POSITIVE, PARTLY, NEGATIVE = 0.65, 0.4, 0.3
"""IoU with a face: from `POSITIVE` on it is one, from `PARTLY` on its box is trained, below `NEGATIVE` it is none."""
BOX_WEIGHT = 0.5
EVERYTHING = -1.0
"""A threshold below every probability."""


@dataclass(frozen=True)
class Stage:
    """What one net says of N boxes of an image."""

    boxes: Tensor
    """`[N, 4]`: what it looked at."""
    logits: Tensor
    """`[N, 2]`: no face, face."""
    offsets: Tensor
    """`[N, 4]`: by which edges move, in widths and heights."""

    @property
    def probability(self) -> Tensor:
        return self.logits.softmax(1)[:, 1]

    @property
    def refined(self) -> Tensor:
        """`[N, 4]`: the boxes it says."""
        return self.boxes + self.offsets * _sides(self.boxes)

    @property
    def log_odds(self) -> Tensor:
        return self.logits[:, 1] - self.logits[:, 0]


class Cascade(nn.Module):
    """Candidates are all cells of the first stage's image pyramid, and the crops that the later stages look at."""

    def __init__(
        self, first: Any, second: Any, third: Any, min_face_size: int, thresholds: Sequence[float], factor: float
    ) -> None:
        super().__init__()
        first.softmax4_1 = second.softmax5_1 = third.softmax6_1 = nn.Identity()  # logits, whose gradient never vanishes
        self.first, self.second, self.third = first, second, third
        self.min_face_size = min_face_size
        self.thresholds = thresholds
        self.factor = factor

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, 3, H, W]` in [0, 1]."""
        made = [self._stages(images[index : index + 1] * 255) for index in range(len(images))]
        every = [stages for stages, _ in made]
        return DetectorOutput(
            detect=lambda: padded([found for _, found in made]),
            candidates=torch.stack([_candidates(stages) for stages in every]),
            logits=torch.stack([_log_odds(stages) for stages in every])[..., None],
            training_loss=partial(_losses, every),
        )

    def _stages(self, image: Tensor) -> tuple[list[Stage], tuple[Tensor, Tensor, Tensor]]:
        """All three on one image `[1, 3, H, W]` in [0, 255], and what is reported."""
        cells, boxes = self._pyramid(image)
        second = self._looked_at(image, boxes, 24)
        kept = second.probability > self.thresholds[1]
        boxes, scores, offsets = second.boxes[kept], second.probability[kept], second.offsets[kept]
        picked = nms(boxes, scores, 0.7)
        boxes = rerec(bbreg(boxes[picked].detach(), offsets[picked].detach()))
        third = self._looked_at(image, boxes, 48)
        kept = third.probability > self.thresholds[2]
        scores = third.probability[kept].detach()
        boxes = bbreg(third.boxes[kept].clone(), third.offsets[kept].detach())
        picked = batched_nms_numpy(boxes, scores, torch.zeros_like(scores), 0.7, "Min")
        labels = torch.zeros(len(picked), dtype=torch.int64, device=image.device)
        return [cells, second, third], (boxes[picked], scores[picked], labels)

    def _pyramid(self, image: Tensor) -> tuple[Stage, Tensor]:
        """The first stage on every cell of every scale, and the squares `[P, 4]` that it hands on."""
        height, width = image.shape[-2:]
        stages, handed = [], []
        scale = 12.0 / self.min_face_size
        while min(height, width) * scale >= 12:
            small = imresample(image, (int(height * scale + 1), int(width * scale + 1)))
            offsets, logits = self.first((small - 127.5) * 0.0078125)
            found, _ = generateBoundingBox(offsets, logits.softmax(1)[:, 1], scale, EVERYTHING)
            stages.append(Stage(found[:, :4].detach(), logits[0].flatten(1).T, found[:, 5:]))
            found = found[found[:, 4] >= self.thresholds[0]].detach()
            handed.append(found[nms(found[:, :4], found[:, 4], 0.5)])
            scale *= self.factor
        cells = Stage(*(torch.cat(parts) for parts in zip(*(vars(one).values() for one in stages), strict=True)))
        boxes = torch.cat(handed)
        boxes = boxes[nms(boxes[:, :4], boxes[:, 4], 0.7)]
        widths = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
        return cells, rerec(boxes[:, :4] + boxes[:, 5:] * widths)

    def _looked_at(self, image: Tensor, boxes: Tensor, side: int) -> Stage:
        """A later stage on crops `[P, 4]`; those that lie outside of the image are left out."""
        height, width = image.shape[-2:]
        edges = [pad(boxes, width, height)] if len(boxes) else []
        crops, kept = [], []
        for top, bottom, left, right in edges:
            for place in range(len(boxes)):
                if bottom[place] >= top[place] and right[place] >= left[place]:
                    crop = image[..., top[place] - 1 : bottom[place], left[place] - 1 : right[place]]
                    crops.append(imresample(crop, (side, side)))
                    kept.append(place)
        if not crops:
            nothing = image.new_zeros(0, 4)
            return Stage(nothing, image.new_zeros(0, 2), nothing)
        net = self.second if side == 24 else self.third
        offsets, *_, logits = net((torch.cat(crops) - 127.5) * 0.0078125)
        return Stage(boxes[kept].detach(), logits, offsets)


def _sides(boxes: Tensor) -> Tensor:
    """Width and height, as MTCNN counts pixels, twice, `[N, 4]`."""
    return (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)


def _candidates(stages: Sequence[Stage]) -> Tensor:
    """`[A, 4]`: of images of one size always as many."""
    cells, *later = stages
    return torch.cat([cells.refined, *(_filled(one.refined, 0.0) for one in later)])


def _log_odds(stages: Sequence[Stage]) -> Tensor:
    cells, *later = stages
    return torch.cat([cells.log_odds, *(_filled(one.log_odds, NOTHING) for one in later)])


def _filled(values: Tensor, filling: float) -> Tensor:
    """Cut or padded to `CROPS` rows."""
    missing = max(0, CROPS - len(values))
    return torch.cat([values[:CROPS], values.new_full((missing, *values.shape[1:]), filling)])


def _losses(every: Sequence[Sequence[Stage]], boxes: Tensor, labels: Tensor) -> Tensor:
    """The losses of the paper's section 3, of all cells and crops: it mines the hardest 70 percent of a batch."""
    there = objects(boxes, labels) & (labels == 0)  # its one class
    pairs = zip(every, boxes, there, strict=True)
    return torch.stack([torch.stack([_loss(one, box[real]) for one in stages]).sum() for stages, box, real in pairs])


def _loss(stage: Stage, faces: Tensor) -> Tensor:
    """Cross-entropy of face or no face, of both alike, and the squared error of the offsets of boxes about a face."""
    total = stage.logits.sum() * 0
    overlap = iou(stage.boxes, faces)
    best = overlap.amax(1) if len(faces) else overlap.new_zeros(len(overlap))
    for wanted, chosen in ((1, best >= POSITIVE), (0, best < NEGATIVE)):
        if bool(chosen.any()):
            total = total - stage.logits[chosen].log_softmax(1)[:, wanted].mean()
    about = best >= PARTLY
    if bool(about.any()):
        aim = (faces[overlap[about].argmax(1)] - stage.boxes[about]) / _sides(stage.boxes[about])
        total = total + BOX_WEIGHT * (stage.offsets[about] - aim).square().sum(1).mean()
    return total
