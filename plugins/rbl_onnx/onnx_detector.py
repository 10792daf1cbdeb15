"""Detectors from ONNX files: what an export of torchvision reports, or the one output of a YOLO."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from rbl_onnx.detector_forms import Reporter, Resized, Yolo, by_cell
from rbl_onnx.inference import Inference
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.class_numbers import COCO_OUTPUTS, ClassNumbers, Numbering, numbers_of
from robustbench_lab.plugin_tools.local_files import ExistingFile, existing_file, listed
from robustbench_lab.plugin_tools.normalization import normalized

Form = Literal["detections", "yolo"]


def onnx_detector(
    path: ExistingFile,
    form: Form | None = None,
    classes: int | None = None,
    labels: Numbering | list[int] | None = None,
    size: list[int] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    gradient: bool = False,
) -> nn.Module:
    """The detector of an ONNX file, for images `[B, 3, H, W]` in [0, 1], to a DetectorOutput.

    form: `detections` has outputs boxes (xyxy), labels and scores of one image; `yolo` has one output, for each cell
    centre, width, height and the probability of each class. Boxes are in pixels of what the network sees. By default
    the number of outputs tells. classes: the labels that `detections` tells apart, with the background. labels: see
    `numbers_of`; by default `coco80` for 91, else `from-1` for `detections`, `from-0` for `yolo`. size: [height, width]
    that images are resized to, where the file leaves it open. mean, std: normalisation. nms_threshold: of `yolo`.
    gradient: run `yolo` by onnx2torch, which has gradients. Raises UsageError.
    """
    source = f"onnx-detector '{path}'"
    for name, value in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
        if not 0 <= value <= 1:
            raise UsageError(f"{source}: {name} must be between 0 and 1, not {value:g}")
    inference = Inference(str(existing_file(path, "onnx-detector")), source)
    seen = _size(inference.size, size, source)
    if (form or _form(inference, source)) == "detections":
        if gradient:
            raise UsageError(f"{source}: what it reports has no gradient; gradient=True is for form='yolo'")
        net: nn.Module = Reporter(inference, _reported(classes, labels, source), score_threshold)
    else:
        grid = _differentiable(path) if gradient else _black_box(inference)
        outputs = _outputs(grid, seen, source)
        chosen = labels or ("coco80" if outputs == COCO_OUTPUTS else "from-0")
        numbers = ClassNumbers(numbers_of(chosen, outputs, source), outputs)
        net = Yolo(grid, numbers, score_threshold, nms_threshold)
    return Resized(normalized(net, mean, std), seen).eval()


def _size(file: tuple[int | None, int | None], given: list[int] | None, source: str) -> tuple[int, int]:
    """Height and width that the network sees."""
    if given is not None and (len(given) != 2 or min(given) < 1):
        raise UsageError(f"{source}: size is {given}; give [height, width]")
    height, width = file
    if height is None or width is None:
        if given is None:
            raise UsageError(f"{source}: the file leaves the size of images open; add size=[height, width]")
        return given[0], given[1]
    if given not in (None, [height, width]):
        raise UsageError(f"{source}: it takes images of {height}x{width}; leave size out")
    return height, width


def _form(inference: Inference, source: str) -> Form:
    known: dict[int, Form] = {1: "yolo", 3: "detections"}
    if len(inference.outputs) not in known:
        found = listed((f"{name} {shape}" for name, shape in inference.outputs), 6)
        raise UsageError(f"{source}: has outputs {found}; boxes, labels and scores are needed, or the one of a YOLO")
    return known[len(inference.outputs)]


def _reported(classes: int | None, labels: Numbering | list[int] | None, source: str) -> ClassNumbers:
    outputs = COCO_OUTPUTS if classes is None and labels == "coco80" else classes
    if outputs is None:
        raise UsageError(f"{source}: add classes=..., the number of labels it tells apart, with the background")
    chosen = labels or ("coco80" if outputs == COCO_OUTPUTS else "from-1")
    return ClassNumbers(numbers_of(chosen, outputs, source), outputs)


def _black_box(inference: Inference) -> Callable[[Tensor], Tensor]:
    def grid(images: Tensor) -> Tensor:
        parts = torch.split(images, 1 if inference.batch == 1 else len(images))
        return by_cell(torch.cat([inference(part)[0] for part in parts]))

    return grid


def _differentiable(path: str) -> Callable[[Tensor], Tensor]:
    from rbl_onnx.onnx_model import onnx_model

    net = onnx_model(path)
    return nn.Sequential(net, _ByCell())


class _ByCell(nn.Module):
    def forward(self, output: Tensor) -> Tensor:
        return by_cell(output)


def _outputs(grid: Callable[[Tensor], Tensor], size: tuple[int, int], source: str) -> int:
    """How many classes a YOLO tells apart, by its output for a black image."""
    with torch.no_grad():
        cells = grid(torch.zeros(1, 3, *size))
    if cells.ndim != 3 or cells.shape[2] < 5:
        raise UsageError(f"{source}: its output has shape {list(cells.shape)}, not [B, 4 + classes, cells]")
    return cells.shape[2] - 4
