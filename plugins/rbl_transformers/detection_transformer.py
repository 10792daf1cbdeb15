"""DETR and its kin: every query is a candidate, and nothing is suppressed."""

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from rbl_transformers.preparation import Preparation
from robustbench_lab.plugin_tools.class_numbers import ClassNumbers, objects
from robustbench_lab.plugin_tools.full_precision import in_full_precision
from robustbench_lab.tasks.detector_output import Detections, DetectorOutput, log_odds


@dataclass(frozen=True)
class Family:
    """In what one kind of model differs from another."""

    no_object: bool
    """Whether its logits are a softmax whose last output means that there is no object; a sigmoid otherwise."""
    images_first: bool = False
    """Whether predictions of all decoder layers come as `[B, L, Q, ...]`, not `[L, B, Q, ...]`."""


FAMILIES = {
    "conditional_detr": Family(no_object=False),
    "deformable_detr": Family(no_object=False),
    "detr": Family(no_object=True),
    "rt_detr": Family(no_object=False, images_first=True),
    "rt_detr_v2": Family(no_object=False, images_first=True),
    "yolos": Family(no_object=True),
}


@dataclass(frozen=True)
class _LossArguments:
    """What a model hands to its own loss function, beside the labels."""

    logits: Tensor
    """`[B, Q, outputs]`."""
    boxes: Tensor
    """`[B, Q, 4]`: centre, width and height as shares of the image."""
    layers: tuple[Tensor | None, Tensor | None]
    """Logits and boxes of each decoder layer, where auxiliary losses are in use."""
    others: dict[str, Any]

    def of_image(self, index: int, *, images_first: bool) -> dict[str, Any]:
        """Cut to one image."""
        row = slice(index, index + 1)
        layers = [one if one is None else one[row] if images_first else one[:, row] for one in self.layers]
        others = {
            name: one[row] if isinstance(one, Tensor) and len(one) == len(self.logits) else one
            for name, one in self.others.items()
        }
        return {
            "logits": self.logits[row],
            "pred_boxes": self.boxes[row],
            "outputs_class": layers[0],
            "outputs_coord": layers[1],
            **others,
        }


class DetectionTransformer(nn.Module):
    """A model of transformers, its own loss of each image, and its processor's detections.

    RT-DETR and Deformable DETR stop gradients on purpose, where one layer's boxes become the next one's reference
    points and in the targets of RT-DETR's classes: an attack gets the gradient that the model is trained with.
    """

    def __init__(self, net: Any, preparation: Preparation, classes: ClassNumbers, score_threshold: float) -> None:
        super().__init__()
        self.family = FAMILIES[net.config.model_type]
        self.own_loss = net.loss_function
        net.loss_function = _keep_arguments
        self.net = net
        self.preparation = preparation
        self.classes = classes
        self.score_threshold = score_threshold

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, 3, H, W]` in [0, 1]."""
        outputs = self.net(pixel_values=self.preparation(images), labels=[])  # labels, so that it comes to its loss
        arguments: _LossArguments = outputs.loss_dict["arguments"]
        logits, boxes = arguments.logits, arguments.boxes
        height, width = images.shape[-2:]
        scale = boxes.new_tensor([width, height, width, height])
        odds = log_odds(logits, logits.shape[-1] - 1) if self.family.no_object else logits
        return DetectorOutput(
            detect=partial(self._detections, logits, boxes, (height, width)),
            candidates=_corners(boxes) * scale,
            logits=self.classes.chosen(odds),
            training_loss=partial(self._losses, arguments, scale),
        )

    def _detections(self, logits: Tensor, boxes: Tensor, size: tuple[int, int]) -> Detections:
        outputs = SimpleNamespace(logits=logits, pred_boxes=boxes)
        return self.classes.detections(self.preparation.detections(outputs, self.score_threshold, size))

    def _losses(self, arguments: _LossArguments, scale: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        losses = []
        for index, there in enumerate(objects(boxes, labels)):
            target = {
                "class_labels": self.classes.own(labels[index, there]),
                "boxes": _centres(boxes[index, there] / scale),
            }
            given = arguments.of_image(index, images_first=self.family.images_first)
            loss, *_ = self.own_loss(labels=[target], device=boxes.device, config=self.net.config, **given)
            losses.append(loss)
        return torch.stack(losses)


def _keep_arguments(
    logits: Tensor,
    labels: Any,  # noqa: ARG001
    device: Any,  # noqa: ARG001
    pred_boxes: Tensor,
    config: Any,  # noqa: ARG001
    outputs_class: Tensor | None = None,
    outputs_coord: Tensor | None = None,
    **others: Any,
) -> tuple[None, dict[str, _LossArguments], None]:
    """In place of the loss function: what it would be given, as the loss's dict of parts."""
    layers = [one if one is None else in_full_precision(one) for one in (outputs_class, outputs_coord)]
    others = {name: in_full_precision(one) if isinstance(one, Tensor) else one for name, one in others.items()}
    kept = _LossArguments(in_full_precision(logits), in_full_precision(pred_boxes), (layers[0], layers[1]), others)
    return None, {"arguments": kept}, None


def _corners(boxes: Tensor) -> Tensor:
    """Centre, width and height to corners, `[..., 4]`."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _centres(boxes: Tensor) -> Tensor:
    """Corners to centre, width and height, `[..., 4]`."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)
