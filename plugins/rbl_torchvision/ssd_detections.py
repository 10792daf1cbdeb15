"""SSD's detections as torchvision makes them, in a fraction of the time where candidates are many.

torchvision suppresses all candidates of a class, up to 400, and then keeps the best 200 or 300 of all classes. What
suppresses a candidate always scores higher than it does, so of the candidates in falling order of score only the first
few hundred need be looked at, until enough are kept: same detections.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import nms

Found = dict[str, Tensor]
"""`boxes` `[D, 4]`, `scores` `[D]` and `labels` `[D]`, from 1, of an image, in falling order of score."""
ONE_CALL = 1000
"""Up to so many candidates torchvision moves the classes apart and suppresses all of them in one call (on a CPU)."""


def ssd_detections(net: Any, heads: dict[str, Tensor], boxes: Tensor) -> list[Found]:
    """What `net.postprocess_detections` makes of its heads.

    net: a torchvision SSD. boxes `[B, A, 4]`: those of the heads, decoded and clipped to the image.
    """
    scores = nn.functional.softmax(heads["cls_logits"], dim=-1)[..., 1:]
    most = min(net.topk_candidates, scores.shape[1])
    best, anchor = torch.where(scores > net.score_thresh, scores, 0).transpose(1, 2).topk(most, dim=2)
    ranked, place = best.flatten(1).sort(dim=1, descending=True)
    labels = place // most + 1
    anchor = anchor.flatten(1).gather(1, place)
    found = []
    for image, count in enumerate((ranked > 0).sum(1).tolist()):
        one = {
            "boxes": boxes[image, anchor[image, :count]],
            "scores": ranked[image, :count],
            "labels": labels[image, :count],
        }
        kept = _kept(one, net.nms_thresh, net.detections_per_img)
        found.append({name: values[kept] for name, values in one.items()})
    return found


def _kept(candidates: Found, most_overlap: float, most: int) -> Tensor:
    """Which of the candidates, in falling order of score, are detections: int64, up to `most`."""
    count, ahead = len(candidates["scores"]), 2 * most
    moved = _moved_apart(candidates) if count <= ONE_CALL else None
    while True:
        first = {name: values[:ahead] for name, values in candidates.items()}
        if moved is None:
            kept = _kept_by_class(first, most_overlap)
        else:
            kept = nms(moved[:ahead], first["scores"], most_overlap)
        if len(kept) >= most or ahead >= count:
            return kept[:most]
        ahead *= 2


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
