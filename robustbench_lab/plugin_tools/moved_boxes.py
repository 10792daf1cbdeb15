"""Detections of an image that a defense has resized and shifted, in the pixels of the image as it was."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from robustbench_lab.tasks.detector_output import Detections, DetectorOutput


def moved_back(output: DetectorOutput, scale: Tensor, shift: Tensor) -> DetectorOutput:
    """What a detector says of images in which pixel `p` was moved to `p * scale + shift`, for the images before.

    scale: `[B]`. shift: `[B, 2]`, to the right and down, in pixels of the moved images. Candidates keep their gradient,
    detections keep their scores and labels, and the training loss takes objects of the images before.
    """
    corners, factor = shift.repeat(1, 2)[:, None], scale[:, None, None]
    loss = output.training_loss

    def detect() -> Detections:
        found = output.detections
        boxes = (found["boxes"] - corners) / factor
        return {**found, "boxes": boxes * (found["scores"] > 0)[..., None]}

    return replace(
        output,
        detect=detect,
        candidates=None if output.candidates is None else (output.candidates - corners) / factor,
        training_loss=None if loss is None else lambda boxes, labels: loss(boxes * factor + corners, labels),
    )
