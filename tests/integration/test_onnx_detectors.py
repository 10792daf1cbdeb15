"""Detectors from ONNX files: `onnx-detector(path=...)`, against onnxruntime itself and against torchvision."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rbl_onnx.onnx_detector import onnx_detector
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.detector_output import DetectorOutput
from robustbench_lab.testing.detector_contract import check_detector

HEIGHT, WIDTH, CLASSES = 32, 48, 3
BOXES = torch.tensor([[[4.0, 4, 30, 30]], [[10.0, 8, 40, 28]]])
LABELS = torch.tensor([[0], [2]])
REPORTED = np.array([[16 * x, 16 * y, 16 * x + 16, 16 * y + 16] for y in range(2) for x in range(3)], np.float32)


def save(
    folder: Path, nodes: list[Any], constants: dict[str, Any], takes: list[Any], outputs: dict[str, tuple[int, int]]
) -> str:
    """outputs: type and number of axes of each."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)],
        [helper.make_tensor_value_info(name, kind, [None] * axes) for name, (kind, axes) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    file = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    return str(file)


def yolo(folder: Path, takes: list[Any] | None = None, *, transposed: bool = False, boxes_only: bool = False) -> str:
    """A cell for 8 x 8 pixels: centre, width and height up to 32 pixels, and probabilities of three classes."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["conv"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Reshape", ["conv", "cells"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["shares"]),
        helper.make_node("Mul", ["shares", "scale"], ["y" if not transposed else "rows"]),
    ]
    if transposed:
        nodes.append(helper.make_node("Transpose", ["rows"], ["y"], perm=[0, 2, 1]))
    rows = 4 if boxes_only else 4 + CLASSES
    constants = {
        "kernel": random.normal(0, 0.3, (rows, 3, 8, 8)).astype(np.float32),
        "cells": np.array([0, rows, -1]),
        "scale": np.array([32.0] * 4 + [1.0] * (rows - 4), np.float32)[:, None],
    }
    return save(folder, nodes, constants, takes or [1, 3, HEIGHT, WIDTH], {"y": (TensorProto.FLOAT, 3)})


def reporter(folder: Path, *, batch_axis: bool = False) -> str:
    """Six fixed boxes; the score of each is the mean of its pixels; labels 1, 2, 3, 1, 2, 3."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["means"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("ReduceMean", ["means"], ["grey"], axes=[1], keepdims=0),
        helper.make_node("Reshape", ["grey", "row"], ["scores"]),
        helper.make_node("Identity", ["fixed_labels"], ["labels"]),
        helper.make_node("Identity", ["fixed_boxes"], ["boxes"]),
    ]
    labels, boxes, row = np.array([1, 2, 3, 1, 2, 3]), REPORTED, [-1]
    if batch_axis:
        labels, boxes, row = labels[None], boxes[None], [1, -1]
    constants = {"fixed_labels": labels, "fixed_boxes": boxes, "row": np.array(row)}
    axes = 1 + batch_axis
    kinds = {
        "labels": (TensorProto.INT64, axes),
        "scores": (TensorProto.FLOAT, axes),
        "boxes": (TensorProto.FLOAT, axes + 1),
    }
    return save(folder, nodes, constants, [1, 3, HEIGHT, WIDTH], kinds)


def images(height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0))


def of_runtime(path: str, image: torch.Tensor) -> list[np.ndarray]:
    return list(onnxruntime.InferenceSession(path).run(None, {"x": image[None].numpy()}))


# ---------------------------------------------------------------- a YOLO's output


@pytest.mark.parametrize("takes", [[1, 3, HEIGHT, WIDTH], ["N", 3, HEIGHT, WIDTH]])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_a_yolos_cells_are_its_candidates(tmp_path: Path, takes: list[Any], transposed: bool, gradient: bool) -> None:
    path = yolo(tmp_path, takes, transposed=transposed)
    with torch.no_grad():
        output = onnx_detector(path, gradient=gradient)(images())
    assert output.candidates is not None
    assert output.logits is not None
    for index, image in enumerate(images()):
        (cells,) = of_runtime(path, image)
        rows = cells[0].T if not transposed else cells[0]
        centre, half = rows[:, :2], rows[:, 2:4] / 2
        np.testing.assert_allclose(
            output.candidates[index], np.concatenate([centre - half, centre + half], 1), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(output.logits[index].sigmoid(), rows[:, 4:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gradient", [False, True])
def test_a_yolo_keeps_to_the_contract_of_detectors(tmp_path: Path, gradient: bool) -> None:
    model = onnx_detector(yolo(tmp_path), gradient=gradient)
    assert check_detector(model, images(), BOXES, LABELS, dtype=torch.float32) == []


def test_the_gradient_of_a_yolo_is_the_slope_of_the_runtime(tmp_path: Path) -> None:
    path = yolo(tmp_path)
    x = images()[:1].requires_grad_()
    output = onnx_detector(path, gradient=True)(x)
    (gradient,) = torch.autograd.grad(output.logits.sigmoid().sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    ahead, behind = (of_runtime(path, (x + step * direction).detach()[0])[0][0, 4:].sum() for step in (1e-3, -1e-3))
    assert (ahead - behind) / 2e-3 == pytest.approx(float((gradient * direction).sum()), rel=1e-2)


def test_a_black_box_has_no_gradient_and_no_training_loss(tmp_path: Path) -> None:
    output: DetectorOutput = onnx_detector(yolo(tmp_path))(images().requires_grad_())
    assert output.logits is not None
    assert not output.logits.requires_grad
    assert output.training_loss is None


def test_very_small_probabilities_keep_their_gradient(tmp_path: Path) -> None:
    from rbl_onnx.detector_forms import log_odds_of

    x = torch.tensor([-60.0, -20.0, 0.0, 5.0], requires_grad=True)
    odds = log_odds_of(x.sigmoid())
    torch.testing.assert_close(odds, x)
    (gradient,) = torch.autograd.grad(odds.sum(), x)
    torch.testing.assert_close(gradient, torch.ones(4), rtol=1e-2, atol=1e-2)


# ---------------------------------------------------------------- boxes, labels and scores


@pytest.mark.parametrize("batch_axis", [False, True])
def test_what_is_reported_are_the_detections(tmp_path: Path, batch_axis: bool) -> None:
    path = reporter(tmp_path, batch_axis=batch_axis)
    model = onnx_detector(path, classes=4, score_threshold=0.5)
    found = model(images()).detections
    for index, image in enumerate(images()):
        scores = of_runtime(path, image)[1].flatten()
        order = [place for place in np.argsort(-scores, kind="stable") if scores[place] > 0.5]
        assert 0 < len(order) < 6
        np.testing.assert_allclose(found["scores"][index, : len(order)], scores[order], rtol=1e-6)
        np.testing.assert_array_equal(found["labels"][index, : len(order)], [place % 3 for place in order])
        np.testing.assert_array_equal(found["boxes"][index, : len(order)], REPORTED[order])
        assert (found["scores"][index, len(order) :] == 0).all()


def test_what_is_reported_are_the_candidates_too(tmp_path: Path) -> None:
    model = onnx_detector(reporter(tmp_path), classes=4)
    assert check_detector(model, images(), BOXES, LABELS, dtype=torch.float32) == []
    output = model(images())
    best, label = output.logits.sigmoid().max(2)
    there = output.detections["scores"] > 0
    torch.testing.assert_close(best[there], output.detections["scores"][there])
    assert torch.equal(label[there], output.detections["labels"][there])
    assert (best[~there] < 1e-9).all()


def test_images_are_resized_to_what_the_network_takes_and_boxes_back(tmp_path: Path) -> None:
    model = onnx_detector(reporter(tmp_path), classes=4, score_threshold=0.0)
    plain = model(images())
    large = model(torch.nn.functional.interpolate(images(), (64, 144), mode="nearest"))
    assert (large.detections["scores"] > 0).sum() == 12
    edges = large.detections["boxes"][:, :6].amax(1)
    assert edges[:, 2:].tolist() == [[144.0, 64.0]] * 2
    assert plain.detections["boxes"][:, :6].amax(1)[:, 2:].tolist() == [[48.0, 32.0]] * 2
    assert large.candidates[:, :6].amax(1)[:, 2:].tolist() == [[144.0, 64.0]] * 2


def test_normalisation_is_inside(tmp_path: Path) -> None:
    path = reporter(tmp_path)
    plain = onnx_detector(path, classes=4, score_threshold=0.0)(images() / 2).detections
    halved = onnx_detector(path, classes=4, score_threshold=0.0, mean=[0.0] * 3, std=[2.0] * 3)(images()).detections
    torch.testing.assert_close(plain["scores"], halved["scores"])


def test_labels_can_be_named_and_others_are_left_out(tmp_path: Path) -> None:
    found = onnx_detector(reporter(tmp_path), classes=4, labels=[3, 1], score_threshold=0.0)(images()).detections
    assert found["labels"][0].unique().tolist() == [-1, 0, 1]
    assert (found["scores"][0] > 0).sum() == 4


def test_a_defended_copy_runs_the_same_network(tmp_path: Path) -> None:
    model = onnx_detector(reporter(tmp_path), classes=4)
    assert torch.equal(copy.deepcopy(model)(images()).detections["scores"], model(images()).detections["scores"])


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("make", "params", "problem"),
    [
        (reporter, {}, "add classes="),
        (reporter, {"classes": 2}, "reports label 3; classes=2 is too few"),
        (reporter, {"classes": 4, "gradient": True}, "gradient=True is for form='yolo'"),
        (reporter, {"classes": 4, "size": [64, 64]}, "it takes images of 32x48; leave size out"),
        (reporter, {"form": "yolo"}, r"its output has shape \[6\], not \[B, 4 \+ classes, cells\]"),
        (yolo, {"form": "detections", "classes": 4}, "boxes .* whole labels .* and scores .* are needed"),
        (yolo, {"labels": [5]}, r"labels has 5, but its outputs are 0\.\.2"),
        (yolo, {"score_threshold": 3.0}, "score_threshold must be between 0 and 1, not 3"),
        (yolo, {"size": [0, 1]}, r"give \[height, width\]"),
        (lambda folder: yolo(folder, ["N", 3, "H", "W"]), {}, r"leaves the size of images open; add size="),
        (lambda folder: yolo(folder, [4, 3, HEIGHT, WIDTH]), {}, "takes 4 images at once"),
        (lambda folder: yolo(folder, boxes_only=True), {}, r"its output has shape \[1, 24, 4\]"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, make: Any, params: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        onnx_detector(make(tmp_path), **params)(images())
    assert str(caught.value).startswith("onnx-detector '")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_network_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(UsageError, match="onnxruntime cannot load it") as caught:
        onnx_detector(str(tmp_path / "net.onnx"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="there is no file"):
        onnx_detector(str(tmp_path / "absent.onnx"))


# ---------------------------------------------------------------- a real export


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_an_export_of_torchvision_reports_what_torchvision_does(tmp_path: Path) -> None:
    from rbl_torchvision.torchvision_detector import torchvision_detector

    name = "ssdlite320_mobilenet_v3_large"
    model = torchvision_detector(name, random_weights=True, num_classes=4, score_threshold=0.2)
    norms = [one for one in model.net.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    for one in norms:  # batch statistics of random weights, so that no two scores are alike
        one.train().momentum = 1.0
    with torch.no_grad():
        model.net.backbone(torch.rand((4, 3, 320, 320), generator=torch.Generator().manual_seed(0)))
    for one in norms:
        one.eval()
    x = torch.rand((1, 3, 320, 320), generator=torch.Generator().manual_seed(1))
    file = tmp_path / "ssd.onnx"
    torch.onnx.export(model.net, (list(x),), file, opset_version=13, dynamo=False)
    with torch.no_grad():
        wanted = model(x).detections
        found = onnx_detector(str(file), classes=4, score_threshold=0.2)(x).detections
    assert (wanted["scores"][0, :50] > 0).all()

    def rows(detections: dict[str, torch.Tensor]) -> torch.Tensor:
        scores, labels = (detections[part][0, :, None] for part in ("scores", "labels"))
        return torch.cat([detections["boxes"][0], 1000 * scores, 1000 * labels], dim=1)

    nearest = (rows(wanted)[:50, None] - rows(found)).abs().amax(2).min(1).values
    assert nearest.max() < 1  # pixel, or a thousandth of a score
