"""The contract tests for detectors find what is wrong with an adapter."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustbench_lab.tasks.detector_output import DetectorOutput, padded
from robustbench_lab.testing.detector_contract import check_detector

IMAGES = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
BOXES, LABELS = torch.tensor([[[0.0, 0, 4, 4]], [[2.0, 2, 8, 8]]]), torch.tensor([[0], [1]])


class Small(nn.Module):
    """Four cells of two classes; `change` spoils what it returns."""

    def __init__(self, change: Callable[[DetectorOutput, Tensor], object] = lambda output, images: output) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 2, 4, stride=4)
        with torch.no_grad():
            self.net.weight.normal_(generator=torch.Generator().manual_seed(1))
        self.change = change

    def forward(self, images: Tensor) -> object:
        logits = self.net(images).flatten(2).transpose(1, 2)
        cells = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]]).to(logits)
        boxes = cells.expand(len(images), -1, -1)

        def loss(_boxes: Tensor, labels: Tensor) -> Tensor:
            return logits.logsumexp(2).sum(1) - logits.sum(1).gather(1, labels).squeeze(1)

        return self.change(DetectorOutput.from_candidates(boxes, logits, training_loss=loss, least_score=0.0), images)


def test_a_sound_detector_has_no_remarks() -> None:
    assert check_detector(Small(), IMAGES, BOXES, LABELS) == []


def test_a_black_box_needs_detections_only() -> None:
    model = Small(lambda output, _: DetectorOutput(lambda: output.detections))
    assert check_detector(model, IMAGES, BOXES, LABELS) == []


def drawn(output: DetectorOutput, _images: Tensor) -> DetectorOutput:
    assert output.logits is not None
    return replace(output, logits=output.logits + 0.01 * torch.rand(()))


def of_batch(output: DetectorOutput, images: Tensor) -> DetectorOutput:
    assert output.training_loss is not None
    own = output.training_loss
    return replace(output, training_loss=lambda boxes, labels: own(boxes, labels) / len(images))


def stopped(output: DetectorOutput, _images: Tensor) -> DetectorOutput:
    assert output.training_loss is not None
    own = output.training_loss
    return replace(output, training_loss=lambda boxes, labels: own(boxes, labels).detach())


def halved(output: DetectorOutput, _images: Tensor) -> DetectorOutput:
    assert output.training_loss is not None
    own = output.training_loss

    def loss(boxes: Tensor, labels: Tensor) -> Tensor:
        made = own(boxes, labels)
        return (made + made.detach()) / 2

    return replace(output, training_loss=loss)


def unlabelled(output: DetectorOutput, images: Tensor) -> DetectorOutput:
    box, score = images.new_ones(1, 4), images.new_ones(1)
    found = padded([(box, score, torch.tensor([7]))] * len(images))
    return replace(output, detect=lambda: found)


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        (lambda output, _: output.logits, "it must return a DetectorOutput, not Tensor"),
        (lambda output, _: replace(output, logits=None), "candidates and logits go together"),
        (lambda output, _: replace(output, candidates=output.candidates[:, :2]), "logits have shape"),
        (lambda output, _: replace(output, logits=output.logits / 0), "NaN or infinite"),
        (unlabelled, "label 7, but logits are of 2 classes"),
        (drawn, "logits differ at a second pass"),
        (of_batch, "training losses of an image depend on the other images"),
        (stopped, "the training loss has no gradient"),
        (halved, "along a direction the training loss rises by"),
    ],
)
def test_what_is_wrong_is_said(change: Callable[[DetectorOutput, Tensor], object], remark: str) -> None:
    remarks = check_detector(Small(change), IMAGES, BOXES, LABELS)
    assert any(remark in one for one in remarks), remarks


def test_the_default_type_is_put_back() -> None:
    check_detector(Small(), IMAGES, BOXES, LABELS)
    assert torch.get_default_dtype() is torch.float32
