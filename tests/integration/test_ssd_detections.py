"""SSD's detections beside torchvision's own, on heads of every kind: many candidates, few, none, all on one place."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from rbl_torchvision import ssd_detections as ours
from rbl_torchvision.ssd_detections import ssd_detections

SIZE = (320, 320)


@pytest.fixture(scope="module")
def net() -> Any:
    return torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=6
    ).eval()


def heads_of(seed: int, sharpness: float, spread: float) -> tuple[dict[str, Tensor], Tensor]:
    """Random heads of 2 images, and anchors `[500, 4]` that lie the closer together the smaller the spread."""
    generator = torch.Generator().manual_seed(seed)
    corner = 120 + spread * 100 * torch.randn(500, 2, generator=generator)
    anchors = torch.cat([corner, corner + 40], dim=1)
    logits = sharpness * torch.randn(2, 500, 6, generator=generator)
    return {"cls_logits": logits, "bbox_regression": 0.3 * torch.randn(2, 500, 4, generator=generator)}, anchors


@pytest.mark.parametrize("least", [0.001, 0.3, 0.999999])
@pytest.mark.parametrize("spread", [0.01, 1.0])
@pytest.mark.parametrize(("most", "each"), [(300, 300), (20, 400), (7, 3)])
def test_they_are_torchvisions_own_bit_by_bit(net: Any, least: float, spread: float, most: int, each: int) -> None:
    net.score_thresh, net.detections_per_img, net.topk_candidates = least, most, each
    for seed, sharpness in enumerate((0.5, 3.0)):
        heads, anchors = heads_of(seed, sharpness, spread)
        boxes = net.box_coder.decode_single(heads["bbox_regression"].flatten(0, 1), torch.cat([anchors, anchors]))
        found = ssd_detections(net, heads, clip_boxes_to_image(boxes.view(2, -1, 4), SIZE))
        own = net.postprocess_detections(heads, [anchors, anchors], [SIZE, SIZE])
        for one, other in zip(found, own, strict=True):
            assert {name: values.tolist() for name, values in one.items()} == {
                name: values.tolist() for name, values in other.items()
            }


def test_only_as_many_candidates_are_suppressed_as_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[torch.Size] = []
    monkeypatch.setattr(
        ours, "keep_best", lambda boxes, scores, *_: looked.append(boxes.shape) or torch.ones_like(scores).bool()
    )
    net = SimpleNamespace(topk_candidates=400, score_thresh=0.01, nms_thresh=0.5, detections_per_img=50)
    heads, anchors = heads_of(0, 0.1, 1.0)
    (first, _) = ssd_detections(net, heads, torch.stack([anchors, anchors]))
    assert len(first["scores"]) == 50
    assert looked == [(2, 100, 4)]


@pytest.mark.parametrize("threshold", [0.55, 0.5, 0.45, 0.1])
def test_an_overlap_counts_as_above_the_threshold_where_float64_says_so(threshold: float) -> None:
    near = torch.tensor(threshold)
    for one in (near, near.nextafter(torch.tensor(0.0)), near.nextafter(torch.tensor(1.0))):
        assert bool(one > ours._as_double(threshold)) == (one.item() > threshold)
