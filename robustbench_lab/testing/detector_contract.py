"""What a detector's adapter must keep to. Shipped for authors of plugins and for users with a detector of their own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_lab.tasks.detector_output import MOST_DETECTIONS, DetectorOutput

TOLERANCE = 1e-4
"""Relative, between a batch and its images one by one."""
SLOPE_TOLERANCE = 1e-2
"""Relative, between the gradient and the slope of finite differences."""
STEP = 1e-8
"""So small that hardly any ReLU changes sides between two points."""


def check_detector(
    model: nn.Module, images: Tensor, boxes: Tensor, labels: Tensor, *, dtype: torch.dtype = torch.float64
) -> list[str]:
    """What is wrong with a detector, a line each.

    images `[B, C, H, W]` in [0, 1], B at least 2, with objects `boxes` `[B, M, 4]` and `labels` `[B, M]` (-1: none) for
    the training loss. All is computed in `dtype`, on a copy of the model; in float64 the gradient of the training loss
    is compared with finite differences along random directions.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # of the constants that losses make
    try:
        return _check(copy.deepcopy(model).to(dtype), images.to(dtype), boxes.to(dtype), labels)
    finally:
        torch.set_default_dtype(usual)


def _check(model: nn.Module, images: Tensor, boxes: Tensor, labels: Tensor) -> list[str]:
    with torch.inference_mode():  # first, as the lab does it: what a model keeps from it must not hinder a gradient
        output = model(images)
    if not isinstance(output, DetectorOutput):
        return [f"it must return a DetectorOutput, not {type(output).__name__}"]
    wrong = [*_wrong_detections(output, len(images)), *_wrong_candidates(output, len(images))]
    if wrong:
        return wrong
    wrong = [*_batch_dependence(model, images, boxes, labels)]
    if output.training_loss is not None and images.dtype is torch.float64:
        wrong += _wrong_slope(model, images, boxes, labels)
    return wrong


def _wrong_detections(output: DetectorOutput, count: int) -> Iterator[str]:
    found = output.detections
    shapes = {
        "boxes": [count, MOST_DETECTIONS, 4],
        "scores": [count, MOST_DETECTIONS],
        "labels": [count, MOST_DETECTIONS],
    }
    for name, shape in shapes.items():
        if list(found[name].shape) != shape:
            yield f"detections: {name} have shape {list(found[name].shape)}, not {shape}"
            return
    scores, labels = found["scores"], found["labels"]
    if not bool(((scores >= 0) & (scores <= 1)).all()) or bool((scores.diff(dim=1) > 0).any()):
        yield "detections: scores must lie in [0, 1], in falling order"
    if not torch.equal(labels >= 0, scores > 0):
        yield "detections: a place has a label from 0 where its score is above 0, else -1"
    if output.logits is not None and int(labels.max()) >= output.logits.shape[-1]:
        yield f"detections: label {int(labels.max())}, but logits are of {output.logits.shape[-1]} classes"


def _wrong_candidates(output: DetectorOutput, count: int) -> Iterator[str]:
    if output.candidates is None or output.logits is None:
        if output.candidates is not None or output.logits is not None:
            yield "candidates and logits go together: give both or neither"
        return
    boxes, logits = output.candidates, output.logits
    if boxes.ndim != 3 or boxes.shape[0] != count or boxes.shape[2] != 4:
        yield f"candidates have shape {list(boxes.shape)}, not [{count}, A, 4]"
    elif logits.ndim != 3 or logits.shape[:2] != boxes.shape[:2]:
        yield f"logits have shape {list(logits.shape)}, not {list(boxes.shape[:2])} with the number of classes"
    elif not bool(boxes.isfinite().all() & logits.isfinite().all()):
        yield "candidates or logits are NaN or infinite"


def _batch_dependence(model: nn.Module, images: Tensor, boxes: Tensor, labels: Tensor) -> Iterator[str]:
    together, again = (_numbers(model, images, boxes, labels) for _ in range(2))
    rows = [slice(index, index + 1) for index in range(len(images))]
    alone = [_numbers(model, images[row], boxes[row], labels[row]) for row in rows]
    for name, numbers in together.items():
        single = torch.cat([one[name] for one in alone])
        scale = numbers.abs().max().clamp_min(1.0)
        if not torch.equal(numbers, again[name]):
            yield f"{name} differ at a second pass: nothing may be drawn at random"
        elif single.shape != numbers.shape or bool((single - numbers).abs().max() > TOLERANCE * scale):
            yield f"{name} of an image depend on the other images of its batch"


@torch.no_grad()
def _numbers(model: nn.Module, images: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
    output: Any = model(images)
    found = output.detections
    numbers = {"detections": torch.cat([found["boxes"], found["scores"][..., None], found["labels"][..., None]], 2)}
    if output.candidates is not None:
        numbers |= {"candidates": output.candidates, "logits": output.logits}
    if output.training_loss is not None:
        numbers["training losses"] = output.loss_of(boxes, labels)
    return numbers


def _wrong_slope(model: nn.Module, images: Tensor, boxes: Tensor, labels: Tensor) -> Iterator[str]:
    def losses(x: Tensor) -> Tensor:
        output: DetectorOutput = model(x)
        return output.loss_of(boxes, labels)

    leaf = images.clone().requires_grad_()
    made = losses(leaf)
    if list(made.shape) != [len(images)]:
        yield f"the training loss has shape {list(made.shape)}, not [{len(images)}]: one number for each image"
        return
    if not made.requires_grad:
        yield "the training loss has no gradient"
        return
    (gradient,) = torch.autograd.grad(made.sum(), leaf)
    random = torch.Generator().manual_seed(0)
    for _ in range(2):
        direction = torch.randn(images.shape, generator=random, dtype=torch.float64).to(images.device)
        with torch.no_grad():
            slope = (losses(leaf + STEP * direction) - losses(leaf - STEP * direction)) / (2 * STEP)
        claimed = (gradient * direction).flatten(1).sum(1)
        if bool(((slope - claimed).abs() > SLOPE_TOLERANCE * claimed.abs().max()).any()):
            yield f"along a direction the training loss rises by {slope.tolist()}, its gradient says {claimed.tolist()}"
            return
