"""Detections of images in which far more candidates score enough than an image can have detections."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor

from robustbench_lab.tasks.detector_output import MOST_DETECTIONS, WORKING_SCORE, DetectorOutput, suppressed

LEAST, OVERLAP = 0.05, 0.5


def around(x: float, count: int) -> Tensor:
    """Boxes `[count, 4]` that all overlap each other."""
    shift = torch.linspace(0, 1, count)[:, None]
    return torch.tensor([x, 0.0, x + 20, 20]) + shift * torch.tensor([1.0, 0, 1, 0])


def reports(boxes: Tensor, scores: Tensor) -> list[int]:
    """How many each image reports, `[B, A, 4]` and `[B, A, K]`."""
    found = suppressed(boxes, scores, LEAST, OVERLAP)
    return (found["scores"] >= WORKING_SCORE).sum(1).tolist()


def test_a_flood_about_one_place_does_not_hide_reports_elsewhere() -> None:
    flood, elsewhere = around(0, 5 * MOST_DETECTIONS), torch.cat([around(30 * place, 1) for place in range(1, 41)])
    boxes = torch.cat([flood, elsewhere])[None]
    scores = torch.cat([torch.full((len(flood),), 0.9), torch.full((40,), 0.6)])[None, :, None]
    assert reports(boxes, scores) == [41]
    quiet = torch.where(scores == 0.9, 0.06, scores)
    both = torch.cat([boxes, boxes]), torch.cat([scores, quiet])
    assert reports(*both) == [41, 40]  # nor does it matter what else is in the batch


def test_more_reports_than_places_fill_all_of_them_with_the_surest() -> None:
    count = MOST_DETECTIONS + 150
    boxes = torch.cat([around(30.0 * place, 1) for place in range(count)])[None]
    scores = torch.linspace(0.6, 0.9, count)[None, :, None]
    found = suppressed(boxes, scores, LEAST, OVERLAP)
    assert found["scores"][0].tolist() == sorted(scores.flatten().tolist(), reverse=True)[:MOST_DETECTIONS]


@pytest.mark.parametrize("seed", range(6))
def test_reports_of_a_flood_are_torchvisions(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    corner = 60 * torch.rand((2, 900, 2), generator=random)
    boxes = torch.cat([corner, corner + 4 + 20 * torch.rand((2, 900, 2), generator=random)], dim=2)
    scores = torch.rand((2, 900, 3), generator=random)
    found = suppressed(boxes, scores, LEAST, OVERLAP)
    for image in range(2):
        places, labels = (scores[image] >= WORKING_SCORE).nonzero(as_tuple=True)
        sure = scores[image][places, labels]
        kept = torchvision.ops.batched_nms(boxes[image][places], sure, labels, OVERLAP)[:MOST_DETECTIONS]
        assert len(places) > 2 * MOST_DETECTIONS
        reported = found["scores"][image] >= WORKING_SCORE
        assert found["scores"][image][reported].tolist() == sure[kept].tolist()
        assert found["labels"][image][reported].tolist() == labels[kept].tolist()
        assert torch.equal(found["boxes"][image][reported], boxes[image][places][kept])


def test_the_number_of_candidates_has_no_limit() -> None:
    boxes = around(0, 4 * MOST_DETECTIONS).expand(2, -1, -1)
    logits = torch.full((2, boxes.shape[1], 2), 2.0)
    logits[1, 5:] = -9.0
    output = DetectorOutput.from_candidates(boxes, logits, least_score=LEAST)
    assert output.suppression_count().tolist() == [8 * MOST_DETECTIONS, 10]
