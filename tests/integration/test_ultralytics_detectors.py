"""YOLOs of ultralytics: `ultralytics:<name>`, against the library's own losses and detections."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

# ImportError: OpenCV, which it brings, needs system libraries for windows that a server may lack.
pytest.importorskip(
    "ultralytics", reason="needs ultralytics: pip install --no-deps -r tests/no-deps.txt", exc_type=ImportError
)

from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.tal import TaskAlignedAssigner

from rbl_ultralytics.ultralytics_detector import architectures, ultralytics_detector
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.detector_output import padded
from robustbench_lab.testing.detector_contract import check_detector

BOXES = torch.tensor([[[4.0, 4, 30, 30], [10, 10, 50, 40]], [[0.0, 0, 20, 20], [0, 0, 0, 0]]])
LABELS = torch.tensor([[0, 2], [1, -1]])
SUPPRESSING, TWO_HEADS = "yolo11n", "yolo26n"
END_TO_END = "yolo26n without suppression"
ALL = [SUPPRESSING, TWO_HEADS, END_TO_END]
GREY = 114 / 255


def images(height: int = 64, width: int = 64) -> Tensor:
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0))


def lively(net: Any) -> None:
    """Batch statistics of random weights, so that the input makes a difference at the output."""
    norms = [one for one in net.modules() if isinstance(one, nn.BatchNorm2d)]
    for one in norms:
        one.train().momentum = 1.0
    with torch.no_grad():
        net(torch.rand((8, 3, 128, 128), generator=torch.Generator().manual_seed(1)))
    for one in norms:
        one.eval().running_var.clamp_(min=float(one.running_var.mean()))


def made(name: str, **params: Any) -> Any:
    model = ultralytics_detector(name, random_weights=True, num_classes=3, score_threshold=0.001, **params)
    lively(model.net)
    return model


@pytest.fixture(scope="module")
def detectors() -> dict[str, Any]:
    usual = {name: made(name) for name in (SUPPRESSING, TWO_HEADS)}
    return {**usual, END_TO_END: made(TWO_HEADS, nms=False)}


def own(model: Any, name: str) -> Any:
    """The library's network with the same weights."""
    net = DetectionModel(f"{name.split()[0]}.yaml", nc=3, verbose=False).eval()
    if name != SUPPRESSING:
        net.end2end = name == END_TO_END
    net.load_state_dict(model.net.state_dict())
    net.args = DEFAULT_CFG
    return net


def without_moving_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets follow the predictions, without gradient, which finite differences do not know of: not any more."""
    assign = TaskAlignedAssigner.forward

    def fixed(self: Any, scores: Tensor, boxes: Tensor, points: Tensor, *rest: Any, **named: Any) -> Any:
        around = torch.cat([points - 12, points + 12], dim=1).expand_as(boxes)
        return assign(self, torch.full_like(scores, 0.5), around, points, *rest, **named)

    monkeypatch.setattr(TaskAlignedAssigner, "forward", fixed)
    monkeypatch.setattr(torch, "no_grad", contextlib.nullcontext)  # of a factor of the CIoU loss


@pytest.mark.parametrize("name", ALL)
def test_it_keeps_to_the_contract_of_detectors(
    name: str, detectors: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_moving_targets(monkeypatch)
    assert check_detector(detectors[name], images(), BOXES, LABELS) == []


@pytest.mark.parametrize("name", ALL)
def test_the_training_loss_is_the_librarys_own_of_one_image(name: str, detectors: dict[str, Any]) -> None:
    net = own(detectors[name], name)
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        losses = detectors[name](images()).loss_of(BOXES, LABELS)
        for index in range(2):
            there = LABELS[index] >= 0
            box = BOXES[index, there] / 64
            batch = {
                "img": images()[index : index + 1],
                "batch_idx": torch.zeros(len(box)),
                "cls": LABELS[index, there].float(),
                "bboxes": torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], dim=1),
            }
            torch.testing.assert_close(losses[index], net.loss(batch)[0].sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_detections_are_the_librarys_own(name: str, detectors: dict[str, Any]) -> None:
    net = own(detectors[name], name)
    with torch.no_grad():
        made_of = net(images())[0]
        found = non_max_suppression(made_of, 0.001, 0.7, max_det=300, end2end=net.end2end)
        output = detectors[name](images())
    wanted = padded([(one[:, :4], one[:, 4], one[:, 5].long()) for one in found])
    for part, values in wanted.items():
        torch.testing.assert_close(output.detections[part], values, rtol=1e-4, atol=1e-3)
    assert (wanted["scores"] > 0).any()


def test_what_is_counted_is_what_the_library_gives_to_suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = made(SUPPRESSING), []
    suppress = torchvision.ops.nms
    with torch.no_grad():
        threshold = float(model(images()).logits.sigmoid().quantile(0.8))
    model = ultralytics_detector(SUPPRESSING, random_weights=True, num_classes=3, score_threshold=threshold)
    lively(model.net)

    def counted(boxes: Tensor, *rest: Any) -> Tensor:
        given.append(len(boxes))
        return suppress(boxes, *rest)

    monkeypatch.setattr(torchvision.ops, "nms", counted)
    with torch.no_grad():
        output = model(images())
        assert output.detections["scores"].any()
    assert output.suppression_count().tolist() == given
    assert made(TWO_HEADS, nms=False)(images()).suppression_count() is None


def test_a_head_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="has no head that reports without suppression: leave nms=False out"):
        made(SUPPRESSING, nms=False)


def test_an_empty_image_has_a_loss(detectors: dict[str, Any]) -> None:
    for model in detectors.values():
        losses = model(images()).loss_of(BOXES[:, :0], LABELS[:, :0])
        assert losses.isfinite().all()
        assert (losses > 0).all()


def test_images_are_padded_to_whole_strides(detectors: dict[str, Any]) -> None:
    model = detectors[SUPPRESSING]
    with torch.no_grad():
        made_of = model(images(40, 50))
        filled = model(nn.functional.pad(images(40, 50), (0, 14, 0, 24), value=GREY))
    torch.testing.assert_close(made_of.candidates, filled.candidates)
    torch.testing.assert_close(made_of.logits, filled.logits)


def test_mixed_precision_keeps_boxes_and_losses_in_float32(detectors: dict[str, Any]) -> None:
    for model in detectors.values():
        x = images().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(x)
        loss = output.loss_of(BOXES, LABELS)
        assert loss.dtype == output.candidates.dtype == torch.float32
        assert torch.autograd.grad(loss.sum(), x)[0].isfinite().all()


# ---------------------------------------------------------------- names, weights and settings


def test_names_carry_the_scale() -> None:
    assert {"yolov8n", "yolo11x", "yolov10n", "yolov9c", "yolov3-tiny", "yolov8m-p6"} <= architectures()
    assert not {"yolo11n-seg", "rtdetr-l", "yolov10nn", "yolov8"} & architectures()


def test_weights_come_from_a_local_file(tmp_path: Path, detectors: dict[str, Any]) -> None:
    model = detectors[SUPPRESSING]
    save_file(model.net.state_dict(), tmp_path / "w.safetensors")
    again = ultralytics_detector(SUPPRESSING, weights=str(tmp_path / "w.safetensors"), num_classes=3, labels=[2, 0])
    with torch.no_grad():
        assert torch.equal(again(images()).logits, model(images()).logits[..., [2, 0]])
    with pytest.raises(UsageError, match="do not fit ultralytics:yolo11n"):
        ultralytics_detector(SUPPRESSING, weights=str(tmp_path / "w.safetensors"))


def test_a_pickled_checkpoint_is_not_run(tmp_path: Path, detectors: dict[str, Any]) -> None:
    torch.save({"model": detectors[SUPPRESSING].net, "epoch": 3}, tmp_path / "yolo11n.pt")
    with pytest.raises(UsageError, match=r"pickles Python objects .*never run; save the tensors alone") as caught:
        ultralytics_detector(SUPPRESSING, weights=str(tmp_path / "yolo11n.pt"), num_classes=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "params", "problem"),
    [
        ("yolo11q", {"random_weights": True}, r"knows no detector 'yolo11q'. Did you mean 'yolo11"),
        ("yolo11n", {}, r"give either weights='file.safetensors' or random_weights=True"),
        (
            "yolo11n",
            {"random_weights": True, "score_threshold": 1.2},
            "score_threshold must be between 0 and 1, not 1.2",
        ),
        ("yolo11n", {"random_weights": True, "max_detections": 301}, "max_detections 1 to 300"),
        (
            "yolo11n",
            {"random_weights": True, "num_classes": 3, "labels": [3]},
            r"labels has 3, but its outputs are 0\.\.2",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(name: str, params: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        ultralytics_detector(name, **params)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov8n-p2", "yolov9t", "yolov10n", "yolo12n"]
)
def test_other_generations_keep_to_the_contract_of_detectors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(name)
    without_moving_targets(monkeypatch)
    assert check_detector(model, images(), BOXES, LABELS) == []
