"""RetinaNet, FCOS and SSD of torchvision: one candidate for each anchor, point or default box."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou, clip_boxes_to_image

from rbl_torchvision.resizing import Resizing, network_input
from rbl_torchvision.ssd_detections import ssd_detections
from robustbench_lab.plugin_tools.class_numbers import ClassNumbers
from robustbench_lab.plugin_tools.full_precision import in_full_precision
from robustbench_lab.tasks.detector_output import Detections, DetectorOutput, log_odds
from robustbench_lab.tasks.suppression_input import SuppressionInput

Heads = dict[str, Tensor]
"""What a detector's heads give: `cls_logits` `[B, A, outputs]`, `bbox_regression` `[B, A, 4]`, and `bbox_ctrness`."""


class OneStageDetector(nn.Module):
    """The steps of torchvision's own forward pass, with what lies between them."""

    def __init__(self, net: Any, classes: ClassNumbers) -> None:
        super().__init__()
        self.net = net
        self.classes = classes

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, 3, H, W]` in [0, 1]."""
        shrunk = network_input(self.net.transform, images)
        features = [in_full_precision(one) for one in self.net.backbone(shrunk.tensors).values()]
        heads = {name: in_full_precision(one) for name, one in self.net.head(features).items()}
        anchors = self.net.anchor_generator(shrunk, features)
        cells = [one.shape[-2] * one.shape[-1] for one in features]
        resizing = Resizing.of(images, shrunk)
        boxes = self._boxes(heads, anchors)
        return DetectorOutput(
            detect=partial(self._detections, heads, boxes.detach(), anchors, cells, shrunk, resizing),
            candidates=resizing.boxes_back(boxes),
            logits=self._log_odds(heads),
            training_loss=partial(self._losses, heads, anchors, cells, resizing),
            features=torch.cat([one.flatten(1) for one in features], dim=1),
            suppression=SuppressionInput(self.net.score_thresh),
        )

    def _boxes(self, heads: Heads, anchors: list[Tensor]) -> Tensor:
        deltas, coder = heads["bbox_regression"], self.net.box_coder
        decode = coder.decode if isinstance(self.net, FCOS) else coder.decode_single
        boxes: Tensor = decode(deltas.flatten(0, 1), torch.cat(anchors))
        return boxes.view_as(deltas)

    def _log_odds(self, heads: Heads) -> Tensor:
        """Of the dataset's classes. FCOS's score is the geometric mean of the class's and the centre's probability."""
        logits = heads["cls_logits"]
        if isinstance(self.net, SSD):
            return self.classes.chosen(log_odds(logits, background=0), first=1)
        logits = self.classes.chosen(logits)
        if isinstance(self.net, FCOS):
            logsigmoid = nn.functional.logsigmoid
            log_score = (logsigmoid(logits) + logsigmoid(heads["bbox_ctrness"])) / 2
            return log_score - torch.log(-torch.expm1(log_score.clamp_max(-1e-6)))
        return logits

    def _detections(
        self,
        heads: Heads,
        boxes: Tensor,
        anchors: list[Tensor],
        cells: list[int],
        shrunk: ImageList,
        resizing: Resizing,
    ) -> Detections:
        if isinstance(self.net, SSD) and shrunk.tensors.device.type == "cpu":
            found = ssd_detections(self.net, heads, clip_boxes_to_image(boxes, resizing.inner))
        elif isinstance(self.net, SSD):
            found = self.net.postprocess_detections(heads, anchors, shrunk.image_sizes)
        else:
            per_cell = len(anchors[0]) // sum(cells)
            levels = [count * per_cell for count in cells]
            split = {name: list(torch.split(one, levels, dim=1)) for name, one in heads.items()}
            found = self.net.postprocess_detections(
                split, [torch.split(one, levels) for one in anchors], shrunk.image_sizes
            )
        return self.classes.detections(self.net.transform.postprocess(found, shrunk.image_sizes, resizing.sizes))

    def _losses(
        self, heads: Heads, anchors: list[Tensor], cells: list[int], resizing: Resizing, boxes: Tensor, labels: Tensor
    ) -> Tensor:
        """Torchvision's own losses, summed, of one image after the other: its averages are over a batch."""
        losses = []
        for index, target in enumerate(resizing.targets(boxes, labels, self.classes)):
            one = {name: head[index : index + 1] for name, head in heads.items()}
            losses.append(torch.stack(list(self._parts(one, anchors[index], cells, target).values())).sum())
        return torch.stack(losses)

    def _parts(self, heads: Heads, anchors: Tensor, cells: list[int], target: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of one image."""
        further: tuple[Any, ...] = ()
        if isinstance(self.net, FCOS):
            further = (cells,)
        elif isinstance(self.net, SSD):
            further = ([self._matched(anchors, target["boxes"])],)
        parts: dict[str, Tensor] = self.net.compute_loss([target], heads, [anchors], *further)
        return parts

    def _matched(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """The object of each default box, -1 for none, `[A]`."""
        if len(boxes) == 0:
            return torch.full((len(anchors),), -1, device=anchors.device)
        matched: Tensor = self.net.proposal_matcher(box_iou(boxes, anchors))
        return matched
