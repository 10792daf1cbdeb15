"""SSD's detections as torchvision makes them, in a fraction of the time where candidates are many.

torchvision suppresses all candidates of a class, up to 400, and then keeps the best 200 or 300 of all classes. What
suppresses a candidate always scores higher than it does, so of the candidates in falling order of score only the first
few hundred need be looked at, until enough are kept, and those of all images at once: same detections.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from robustbench_lab.tasks.boxes import keep_best

Found = dict[str, Tensor]
"""`boxes` `[D, 4]`, `scores` `[D]` and `labels` `[D]`, from 1, of an image, in falling order of score."""
ONE_CALL = 1000
"""Up to so many candidates torchvision moves the classes apart and suppresses all of them in one call (on a CPU)."""


def ssd_detections(net: Any, heads: dict[str, Tensor], boxes: Tensor) -> list[Found]:
    """What `net.postprocess_detections` makes of its heads.

    net: a torchvision SSD. boxes `[B, A, 4]`: those of the heads, decoded and clipped to the image.
    """
    scores = nn.functional.softmax(heads["cls_logits"], dim=-1)[..., 1:]
    images = [_Candidates(net, *one) for one in zip(boxes, scores, strict=True)]
    crowded = [image for image in images if image.count > ONE_CALL]
    settled = dict(zip(map(id, crowded), _leaders(crowded, net.nms_thresh), strict=True))
    return [settled.get(id(image)) or image.detections() for image in images]


class _Candidates:
    """Of one image: what scores enough, of each class the `topk_candidates` best."""

    def __init__(self, net: Any, boxes: Tensor, scores: Tensor) -> None:
        """Of boxes `[A, 4]` and scores `[A, K]`."""
        self.net = net
        self.boxes = boxes
        self.classes = scores.shape[1]
        enough = scores > net.score_thresh
        self.count = int(enough.sum(0).clamp_max(net.topk_candidates).sum())
        self.places = enough.flatten().nonzero().squeeze(1)
        self.scores = scores.flatten()[self.places]

    def best(self, most: int) -> Found:
        """In falling order of score, the first `most` but for those that too many of their class come before."""
        scores, order = self.scores.topk(min(most, len(self.scores)))
        places = self.places[order]
        labels = places % self.classes
        allowed = _rank_in_class(labels) < self.net.topk_candidates
        anchors = places[allowed] // self.classes
        return {"boxes": self.boxes[anchors], "scores": scores[allowed], "labels": labels[allowed] + 1}

    def detections(self) -> Found:
        """Those that suppression leaves, up to `detections_per_img`."""
        most, overlap = self.net.detections_per_img, self.net.nms_thresh
        if self.count <= ONE_CALL:
            candidates = self.best(len(self.scores))
            kept = nms(_moved_apart(candidates), candidates["scores"], overlap)
            return {name: values[kept[:most]] for name, values in candidates.items()}
        ahead = 4 * most  # twice as many were too few
        while True:
            candidates = self.best(ahead)
            kept = _kept_by_class(candidates, overlap)
            if len(kept) >= most or ahead >= len(self.scores):
                return {name: values[kept[:most]] for name, values in candidates.items()}
            ahead *= 2


def _leaders(images: list[_Candidates], most_overlap: float) -> list[Found | None]:
    """Detections of images with many candidates, all at once from the best of them; None where these do not suffice."""
    if not images:
        return []
    most = images[0].net.detections_per_img
    best = [image.best(2 * most) for image in images]
    boxes, scores, labels = (
        nn.utils.rnn.pad_sequence([one[name] for one in best], batch_first=True)
        for name in ("boxes", "scores", "labels")
    )
    kept = keep_best(boxes, scores, labels, _as_double(most_overlap))
    found: list[Found | None] = []
    for one, mask in zip(best, kept, strict=True):
        places = mask.nonzero().squeeze(1)[:most]
        found.append({name: values[places] for name, values in one.items()} if len(places) == most else None)
    return found


def _as_double(threshold: float) -> float:
    """What float32 numbers are above exactly where they are above the threshold in float64, as torchvision compares."""
    single = np.float32(threshold)
    return float(np.nextafter(single, np.float32(-np.inf)) if float(single) > threshold else single)


def _rank_in_class(labels: Tensor) -> Tensor:
    """How many of the same label come before each, `[D]`."""
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    begins = (counts.cumsum(0) - counts)[labels[order]]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)) - begins)


def _moved_apart(candidates: Found) -> Tensor:
    """The boxes, those of each class out of reach of the others, as torchvision's `batched_nms` moves them."""
    boxes, labels = candidates["boxes"], candidates["labels"]
    if not len(boxes):
        return boxes
    return boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None]


def _kept_by_class(candidates: Found, most_overlap: float) -> Tensor:
    """Suppression of one class after the other; positions in falling order of score."""
    order = candidates["labels"].argsort(stable=True)
    kept = torch.zeros_like(order, dtype=torch.bool)
    for places in order.split(candidates["labels"].bincount().tolist()):
        if len(places):
            kept[places[nms(candidates["boxes"][places], candidates["scores"][places], most_overlap)]] = True
    return kept.nonzero().squeeze(1)
