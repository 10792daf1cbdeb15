"""A YOLO of ultralytics with weights from a local file: tensors only, since its own .pt files are pickled programs."""

import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from rbl_ultralytics.yolo import YoloDetector
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.global_randomness import seeded
from robustbench_lab.plugin_tools.class_numbers import ClassNumbers, Numbering, numbers_of
from robustbench_lab.plugin_tools.local_files import ExistingFile
from robustbench_lab.plugin_tools.right_gradients import right_gradients
from robustbench_lab.plugin_tools.weights import MatchBy, apply_weights

os.environ.setdefault("YOLO_OFFLINE", "true")  # it would look for the internet when it is imported
import ultralytics
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG

HEADS = ("Detect", "v10Detect")


def ultralytics_detector(
    name: str,
    *,
    weights: ExistingFile | None = None,
    random_weights: bool = False,
    weights_by: MatchBy = "name",
    num_classes: int = 80,
    labels: Numbering | list[int] = "from-0",
    score_threshold: float = 0.05,
    nms: bool = True,
    nms_threshold: float = 0.7,
    max_detections: int = 300,
) -> nn.Module:
    """The detector of ultralytics' architecture `name`, for images `[B, 3, H, W]` in [0, 1], to a DetectorOutput.

    weights: a `.safetensors` or state_dict file of the network; weights_by: see `apply_weights`. random_weights: none,
    the same random weights every time. labels: its numbers of the dataset's classes (see `numbers_of`).
    score_threshold, nms_threshold, max_detections: of its detections. nms: False reports from the head that needs no
    suppression, which YOLOv10 and YOLO26 have besides. Raises UsageError.
    """
    source = f"ultralytics:{name}"
    if name not in architectures():
        raise UsageError(f"ultralytics knows no detector '{name}'.{did_you_mean(name, architectures())}")
    if (weights is not None) == random_weights:
        raise UsageError(f"{source}: give either weights='file.safetensors' or random_weights=True")
    for what, value in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
        if not 0 <= value <= 1:
            raise UsageError(f"{source}: {what} must be between 0 and 1, not {value:g}")
    if num_classes < 1 or not 1 <= max_detections <= 300:
        raise UsageError(f"{source}: num_classes must be at least 1, and max_detections 1 to 300")
    classes = ClassNumbers(numbers_of(labels, num_classes, source), num_classes)
    with seeded("initial weights"):
        net: Any = DetectionModel(f"{name}.yaml", nc=num_classes, verbose=False)  # type: ignore[no-untyped-call]
    if weights is not None:
        apply_weights(net, weights, source, weights_by)
    _choose_head(net.model[-1], source, nms)
    net.args = DEFAULT_CFG  # the weights of its losses
    return YoloDetector(right_gradients(net), classes, score_threshold, nms_threshold, max_detections).eval()


def _choose_head(head: Any, source: str, nms: bool) -> None:
    """Let the network report from its head with or without suppression: what is usual differs from version to version.

    Raises UsageError where it has no such head, or an early ultralytics always takes the one without.
    """
    if not nms and getattr(head, "one2one_cv2", None) is None:
        raise UsageError(f"{source} has no head that reports without suppression: leave nms=False out")
    with suppress(AttributeError):
        head.end2end = not nms
    if head.end2end is nms:
        raise UsageError(f"{source}: this ultralytics has it without suppression only: nms=False, or a newer one")


@cache
def architectures() -> frozenset[str]:
    """Names of the detectors that ultralytics describes: `yolo11n` is `yolo11.yaml` in its scale n."""
    names = set()
    for file in (Path(ultralytics.__file__).parent / "cfg" / "models").glob("*/yolo*.yaml"):
        described = yaml.safe_load(file.read_text(encoding="utf-8"))
        if described["head"][-1][2] not in HEADS:
            continue
        scales = [""] if re.match(r"yolov?\d+[a-z]", file.stem) else described.get("scales") or [""]
        names |= {re.sub(r"(\d+)", rf"\g<1>{scale}", file.stem, count=1) for scale in scales}
    return frozenset(names)
