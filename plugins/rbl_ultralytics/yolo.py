"""A YOLO network with the library's own decoding, suppression and loss."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from ultralytics.utils.nms import non_max_suppression

from robustbench_lab.plugin_tools.class_numbers import ClassNumbers, objects
from robustbench_lab.plugin_tools.full_precision import in_full_precision
from robustbench_lab.tasks.detector_output import Detections, DetectorOutput
from robustbench_lab.tasks.suppression_input import SuppressionInput

GREY = 114 / 255
"""What ultralytics pads with."""
UNLIMITED = 1e9
"""Seconds: its suppression stops after a while otherwise, and reports nothing for the images that are left."""


class YoloDetector(nn.Module):
    """Candidates are all cells of the head that it reports from. YOLOv10 and YOLO26 have one without suppression."""

    def __init__(
        self, net: Any, classes: ClassNumbers, score_threshold: float, nms_threshold: float, max_detections: int
    ) -> None:
        super().__init__()
        self.net = net
        self.classes = classes
        self.suppress = partial(
            non_max_suppression,
            conf_thres=score_threshold,
            iou_thres=nms_threshold,
            max_det=max_detections,
            max_time_img=UNLIMITED,
        )
        self.head = net.model[-1]
        self.suppression = SuppressionInput(score_threshold, best_class_only=True)
        self.head.dynamic = True  # or it keeps its grid from a pass without gradient, which one with gradient refuses

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, 3, H, W]` in [0, 1], padded at the right and the bottom to whole strides."""
        stride = int(self.head.stride.max())
        below, right = (-length % stride for length in images.shape[-2:])
        padded = pad(images, (0, right, 0, below), value=GREY)
        height, width = padded.shape[-2:]
        _, raw = self.net(padded)
        raw = _in_full_precision(raw)
        own = raw if "scores" in raw else raw["one2one" if self.head.end2end else "one2many"]
        cells = self.head._inference(own)  # [B, 4 + outputs, A]
        boxes = cells[:, :4].transpose(1, 2)
        if not self.head.end2end:
            centre, half = boxes[..., :2], boxes[..., 2:] / 2
            boxes = torch.cat([centre - half, centre + half], dim=-1)
        return DetectorOutput(
            detect=partial(self._detections, cells),
            candidates=boxes,
            logits=self.classes.chosen(own["scores"].transpose(1, 2)),
            training_loss=partial(self._losses, raw, (height, width)),
            suppression=None if self.head.end2end else self.suppression,
        )

    def _detections(self, cells: Tensor) -> Detections:
        if self.head.end2end:
            cells = self.head.postprocess(cells.permute(0, 2, 1))
        found = self.suppress(cells, end2end=self.head.end2end)
        return self.classes.detections(
            [{"boxes": one[:, :4], "scores": one[:, 4], "labels": one[:, 5].long()} for one in found]
        )

    def _losses(self, raw: dict[str, Any], size: tuple[int, int], boxes: Tensor, labels: Tensor) -> Tensor:
        criterion = self.net.init_criterion()
        scale = boxes.new_tensor([size[1], size[0], size[1], size[0]])
        losses = []
        for index, there in enumerate(objects(boxes, labels)):
            box, own = boxes[index, there] / scale, self.classes.own(labels[index, there])
            target = {
                "batch_idx": torch.zeros_like(own),
                "cls": own.to(box.dtype),
                "bboxes": torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], dim=1),
            }
            parts, _ = criterion(_of_image(raw, index), target)
            losses.append(parts.sum())
        return torch.stack(losses)


def _of_image(raw: Any, index: int) -> Any:
    """The network's raw predictions, cut to one image."""
    if isinstance(raw, Tensor):
        return raw[index : index + 1]
    if isinstance(raw, dict):
        return {name: _of_image(one, index) for name, one in raw.items()}
    return [_of_image(one, index) for one in raw]


def _in_full_precision(raw: Any) -> Any:
    if isinstance(raw, Tensor):
        return in_full_precision(raw)
    if isinstance(raw, dict):
        return {name: _in_full_precision(one) for name, one in raw.items()}
    return [_in_full_precision(one) for one in raw]
