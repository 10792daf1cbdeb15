"""Faster R-CNN of torchvision: candidates are the proposals of its first stage, as its second stage judges them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from rbl_torchvision.resizing import Resizing
from robustbench_lab.plugin_tools.class_numbers import ClassNumbers
from robustbench_lab.plugin_tools.full_precision import in_full_precision
from robustbench_lab.tasks.detector_output import Detections, DetectorOutput, log_odds
from robustbench_lab.tasks.suppression_input import SuppressionInput

NOTHING = -50.0
"""Log-odds at the places of proposals that an image does not have."""
BETA = 1 / 9
"""Of the smooth L1 loss of both stages, as in torchvision."""


@dataclass(frozen=True)
class _Proposing:
    """The first stage on a batch: an objectness and box deltas for each of A anchors."""

    anchors: list[Tensor]
    """`[A, 4]` for each image."""
    objectness: Tensor
    """`[B, A]`."""
    deltas: Tensor
    """`[B, A, 4]`."""
    proposals: list[Tensor]
    """`[P, 4]` for each image: what it hands on."""


@dataclass(frozen=True)
class _Judged:
    """The second stage on boxes of an image, P of them."""

    boxes: Tensor
    """`[P, 4]`."""
    logits: Tensor
    """`[P, outputs]`, a softmax with the background at 0."""
    deltas: Tensor
    """`[P, outputs * 4]`."""


class TwoStageDetector(nn.Module):
    """The steps of torchvision's own forward pass, with what lies between them.

    The training loss is the expectation of torchvision's over its random samplers: each anchor and each proposal
    counts with the probability with which it would be drawn. It looks at the proposals that the deployed detector
    makes (torchvision hands on more of them in training), and at the objects themselves.
    """

    def __init__(self, net: Any, classes: ClassNumbers) -> None:
        super().__init__()
        self.net = net
        self.classes = classes

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, 3, H, W]` in [0, 1]."""
        shrunk, _ = self.net.transform(list(images))
        features = {name: in_full_precision(one) for name, one in self.net.backbone(shrunk.tensors).items()}
        proposing = self._propose(shrunk, features)
        judged = self._judge(features, proposing.proposals, shrunk)
        resizing = Resizing.of(images, shrunk)
        boxes, logits = self._candidates(judged)
        return DetectorOutput(
            detect=partial(self._detections, judged, shrunk, resizing),
            candidates=resizing.boxes_back(boxes),
            logits=logits,
            training_loss=partial(self._losses, features, proposing, judged, shrunk, resizing),
            features=torch.cat([one.flatten(1) for one in features.values()], dim=1),
            suppression=SuppressionInput(self.net.roi_heads.score_thresh),
        )

    def _propose(self, shrunk: ImageList, features: dict[str, Tensor]) -> _Proposing:
        rpn, levels = self.net.rpn, list(features.values())
        objectness, deltas = ([in_full_precision(one) for one in made] for made in rpn.head(levels))
        anchors = rpn.anchor_generator(shrunk, levels)
        counts = [one[0].numel() for one in objectness]
        flat, flat_deltas = concat_box_prediction_layers(objectness, deltas)
        batch = len(anchors)
        proposals = rpn.box_coder.decode(flat_deltas.detach(), anchors).view(batch, -1, 4)
        found, _ = rpn.filter_proposals(proposals, flat, shrunk.image_sizes, counts)
        return _Proposing(anchors, flat.view(batch, -1), flat_deltas.view(batch, -1, 4), found)

    def _judge(self, features: dict[str, Tensor], boxes: list[Tensor], shrunk: ImageList) -> list[_Judged]:
        heads = self.net.roi_heads
        pooled = heads.box_head(heads.box_roi_pool(features, boxes, shrunk.image_sizes))
        logits, deltas = (in_full_precision(one) for one in heads.box_predictor(pooled))
        counts = [len(one) for one in boxes]
        parts = zip(boxes, torch.split(logits, counts), torch.split(deltas, counts), strict=True)
        return [_Judged(*one) for one in parts]

    def _candidates(self, judged: Sequence[_Judged]) -> tuple[Tensor, Tensor]:
        """`[B, A, 4]` in the network's pixels and `[B, A, K]`: A is how many proposals an image can have at most.

        A candidate's box is the one that the second stage gives for the likeliest of its classes.
        """
        most = self.net.rpn._post_nms_top_n["testing"]
        boxes, logits = [], []
        for one in judged:
            odds = self.classes.chosen(log_odds(one.logits, background=0), first=1)
            likeliest = self.classes.numbers[odds.argmax(1)]
            decoded = self.net.roi_heads.box_coder.decode(one.deltas, [one.boxes])
            decoded = decoded.reshape(*one.logits.shape, 4)  # without a proposal it has lost its shape
            missing = most - len(odds)
            boxes.append(nn.functional.pad(decoded[torch.arange(len(odds)), likeliest], (0, 0, 0, missing)))
            logits.append(nn.functional.pad(odds, (0, 0, 0, missing), value=NOTHING))
        return torch.stack(boxes), torch.stack(logits)

    def _detections(self, judged: Sequence[_Judged], shrunk: ImageList, resizing: Resizing) -> Detections:
        logits, deltas = torch.cat([one.logits for one in judged]), torch.cat([one.deltas for one in judged])
        parts = self.net.roi_heads.postprocess_detections(
            logits, deltas, [one.boxes for one in judged], shrunk.image_sizes
        )
        found = [dict(zip(("boxes", "scores", "labels"), one, strict=True)) for one in zip(*parts, strict=True)]
        return self.classes.detections(self.net.transform.postprocess(found, shrunk.image_sizes, resizing.sizes))

    # ------------------------------------------------------------ the training loss

    def _losses(
        self,
        features: dict[str, Tensor],
        proposing: _Proposing,
        judged: Sequence[_Judged],
        shrunk: ImageList,
        resizing: Resizing,
        boxes: Tensor,
        labels: Tensor,
    ) -> Tensor:
        targets = list(resizing.targets(boxes, labels, self.classes))
        objects = self._judge(features, [one["boxes"].to(boxes.dtype) for one in targets], shrunk)
        losses = []
        for index, target in enumerate(targets):
            pair = judged[index], objects[index]
            every = _Judged(*(torch.cat(parts) for parts in zip(*(vars(one).values() for one in pair), strict=True)))
            losses.append(self._proposing_loss(proposing, index, target) + self._judging_loss(every, target))
        return torch.stack(losses)

    def _proposing_loss(self, proposing: _Proposing, index: int, target: dict[str, Tensor]) -> Tensor:
        """Objectness of every anchor, and boxes of those on objects."""
        rpn, anchors = self.net.rpn, proposing.anchors[index]
        (labels,), (matched,) = rpn.assign_targets_to_anchors([anchors], [target])
        objectness = proposing.objectness[index]
        chance = _chance_of_being_drawn(labels, rpn.fg_bg_sampler, objectness.dtype)
        wrong = binary_cross_entropy_with_logits(objectness, labels.to(objectness.dtype), reduction="none")
        there = labels > 0
        (wanted,) = rpn.box_coder.encode([matched[there]], [anchors[there]])
        off = smooth_l1_loss(proposing.deltas[index][there], wanted, beta=BETA, reduction="none").sum(1)
        return (chance @ wrong + chance[there] @ off) / chance.sum().clamp_min(1)

    def _judging_loss(self, judged: _Judged, target: dict[str, Tensor]) -> Tensor:
        """Classes of every proposal, and boxes of those on objects."""
        heads = self.net.roi_heads
        (matched,), (labels,) = heads.assign_targets_to_proposals([judged.boxes], [target["boxes"]], [target["labels"]])
        chance = _chance_of_being_drawn(labels, heads.fg_bg_sampler, judged.logits.dtype)
        wrong = cross_entropy(judged.logits, labels.clamp_min(0), reduction="none")
        there = labels > 0
        (wanted,) = heads.box_coder.encode([target["boxes"][matched[there]]], [judged.boxes[there]])
        deltas = judged.deltas.view(len(labels), -1, 4)[there, labels[there]]
        off = smooth_l1_loss(deltas, wanted, beta=BETA, reduction="none").sum(1)
        return (chance @ wrong + chance[there] @ off) / chance.sum().clamp_min(1)


def _chance_of_being_drawn(labels: Tensor, sampler: Any, dtype: torch.dtype) -> Tensor:
    """By torchvision's sampler of an image's positive (above 0) and negative (0) labels, `[P]`; the others: never."""
    positive, negative = labels > 0, labels == 0
    there, absent = int(positive.sum()), int(negative.sum())
    drawn = min(there, int(sampler.batch_size_per_image * sampler.positive_fraction))
    other = min(absent, sampler.batch_size_per_image - drawn)
    chance = torch.zeros(labels.shape, dtype=dtype, device=labels.device)
    chance[positive] = drawn / max(there, 1)
    chance[negative] = other / max(absent, 1)
    return chance
