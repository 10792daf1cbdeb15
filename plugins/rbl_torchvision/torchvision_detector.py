"""A torchvision detector with weights from a local file or from torchvision."""

from typing import Any

import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN

from rbl_torchvision.networks import network, published_copy
from rbl_torchvision.one_stage import OneStageDetector
from rbl_torchvision.two_stage import TwoStageDetector
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.class_numbers import COCO_OUTPUTS, ClassNumbers, Numbering, numbers_of
from robustbench_lab.plugin_tools.local_files import ExistingFile
from robustbench_lab.plugin_tools.weights import MatchBy, apply_weights, require_weights
from robustbench_lab.tasks.detector_output import MOST_DETECTIONS

FAMILIES = ("fasterrcnn_", "fcos_", "retinanet_", "ssd")


def torchvision_detector(
    name: str,
    *,
    weights: ExistingFile | None = None,
    pretrained: bool = False,
    random_weights: bool = False,
    weights_by: MatchBy = "name",
    num_classes: int = COCO_OUTPUTS,
    labels: Numbering | list[int] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    score_threshold: float | None = None,
    nms_threshold: float | None = None,
    max_detections: int | None = None,
) -> nn.Module:
    """The torchvision detector `name` for images `[B, 3, H, W]` in [0, 1], to a DetectorOutput.

    weights, pretrained, random_weights, weights_by: as for classifiers. num_classes: its outputs, as torchvision counts
    them: with the background. labels: its numbers of the dataset's classes (see `numbers_of`); by default `coco80` for
    91 outputs, else `from-1`. mean, std: of its normalisation. min_size, max_size: of the sides that images are resized
    to. score_threshold, nms_threshold, max_detections: of its detections. What is None stays as torchvision has it for
    this name. Raises UsageError.
    """
    source = f"torchvision:{name}"
    known = [one for one in torchvision.models.list_models(torchvision.models.detection) if one.startswith(FAMILIES)]
    if name in torchvision.models.list_models(torchvision.models):
        raise UsageError(f"{source} is a classifier, and the data is for detectors, such as torchvision:{known[0]}")
    if name not in known:
        raise UsageError(f"torchvision knows no detector '{name}'.{did_you_mean(name, known)}")
    if num_classes < 2:
        raise UsageError(f"{source}: num_classes counts the background, so it is at least 2, not {num_classes}")
    require_weights(source, weights=weights, pretrained=pretrained, random_weights=random_weights)
    usual: Numbering = "coco80" if num_classes == COCO_OUTPUTS else "from-1"
    softmax = name.startswith(("fasterrcnn", "ssd"))
    numbers = numbers_of(usual if labels is None else labels, num_classes, source, background=softmax)
    trained = torchvision.models.get_model_weights(name).DEFAULT
    published = trained if pretrained else published_copy(name, weights) if weights else None
    net = network(name, source, published, weights, weights_backbone=None, num_classes=num_classes)
    if weights is not None and published is None:
        apply_weights(net, weights, source, weights_by)
    _set_resizing(net.transform, mean, std, min_size, max_size, source)
    _set_thresholds(net, score_threshold, nms_threshold, max_detections, source)
    made = TwoStageDetector if isinstance(net, FasterRCNN) else OneStageDetector
    return made(net, ClassNumbers(numbers, num_classes)).eval()


def _set_resizing(
    transform: Any,
    mean: list[float] | None,
    std: list[float] | None,
    min_size: int | None,
    max_size: int | None,
    source: str,
) -> None:
    for what, values in (("mean", mean), ("std", std)):
        if values is not None and (len(values) != 3 or (what == "std" and min(values) <= 0)):
            raise UsageError(f"{source}: {what} is {values}; give three numbers{' above 0' * (what == 'std')}")
    transform.image_mean = transform.image_mean if mean is None else mean
    transform.image_std = transform.image_std if std is None else std
    if (min_size, max_size) == (None, None):
        return
    if transform.fixed_size is not None:
        side = transform.fixed_size[0]
        raise UsageError(f"{source}: it resizes every image to {side}x{side}; leave min_size and max_size out")
    least = transform.min_size[-1] if min_size is None else min_size
    most = max(transform.max_size, least) if max_size is None else max_size
    if not 1 <= least <= most:
        raise UsageError(f"{source}: min_size={least} and max_size={most} do not fit together")
    transform.min_size, transform.max_size = (least,), most


def _set_thresholds(net: Any, score: float | None, overlap: float | None, detections: int | None, source: str) -> None:
    """Torchvision keeps them in the second stage, or in a detector of one stage itself."""
    for what, value in (("score_threshold", score), ("nms_threshold", overlap)):
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{source}: {what} must be between 0 and 1, not {value:g}")
    if detections is not None and not 1 <= detections <= MOST_DETECTIONS:
        raise UsageError(f"{source}: max_detections must be 1 to {MOST_DETECTIONS}, not {detections}")
    holder = net.roi_heads if isinstance(net, FasterRCNN) else net
    for attribute, value in (("score_thresh", score), ("nms_thresh", overlap), ("detections_per_img", detections)):
        if value is not None:
            setattr(holder, attribute, value)
