"""What models, datasets and defenses must keep to. Shipped for authors of plugins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Dataset, GradientKind
from robustbench_lab.preflight import check_samples
from robustbench_lab.tasks.boxes import iou
from robustbench_lab.tasks.detector_output import DetectorOutput
from robustbench_lab.tasks.forecast_output import point
from robustbench_lab.testing.bright_squares import BrightSquares, bright_squares
from robustbench_lab.testing.known_forecasters import HISTORY, HORIZON, LinearForecaster
from robustbench_lab.testing.known_models import SHAPE, HalfSpace

FEW = 8


def check_dataset(dataset: Dataset) -> list[str]:
    """What is wrong with a dataset, a line each."""
    ids = list(dataset.sample_ids)
    if not ids:
        return ["it has no samples"]
    wrong = []
    if len(set(ids)) != len(ids):
        wrong.append("sample_ids are not unique: outcomes could not be told apart")
    few = list(range(min(FEW, len(ids))))
    samples = dataset.load(few)
    wrong += [finding.message for finding in check_samples(samples, dataset.bounds)]
    backwards = dataset.load(few[::-1]).inputs.flip(0)
    if backwards.shape == samples.inputs.shape and not torch.equal(backwards, samples.inputs):
        wrong.append("load(indices) must return the samples in the order asked for, the same at every call")
    return wrong


def check_defense(defended: nn.Module, gradient: GradientKind, *, randomized: bool) -> list[str]:
    """What is wrong with a defense put in front of a `HalfSpace`, a line each."""
    x = torch.rand(FEW, *SHAPE, generator=torch.Generator().manual_seed(0), requires_grad=True)
    prediction = defended.eval()(x)
    if prediction.shape != (FEW, 2):
        return [f"behind it a model with logits [{FEW}, 2] returns {list(prediction.shape)}"]
    return _declared_otherwise(defended, x, prediction, gradient, randomized=randomized)


def check_forecaster_defense(defended: nn.Module, gradient: GradientKind, *, randomized: bool) -> list[str]:
    """What is wrong with a defense put in front of a `LinearForecaster`, a line each."""
    x = torch.randn(FEW, HISTORY, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    prediction = point(defended.eval()(x))
    if prediction.shape != (FEW, HORIZON, 2):
        return [f"behind it a model with forecasts [{FEW}, {HORIZON}, 2] returns {list(prediction.shape)}"]
    return _declared_otherwise(defended, x, prediction, gradient, randomized=randomized)


def _declared_otherwise(
    defended: nn.Module, x: Tensor, prediction: Tensor, gradient: GradientKind, *, randomized: bool
) -> list[str]:
    """Where a defense is not what its spec says. prediction: of `x`, a leaf with gradient."""
    wrong = []
    again = defended(x)
    differs = not torch.equal(prediction, again if isinstance(again, Tensor) else point(again))
    if differs and not randomized:
        wrong.append("repeated passes differ: declare randomized=True")
    if gradient is not GradientKind.NONE:
        passed = prediction.requires_grad and torch.autograd.grad(prediction[:, 0].sum(), x)[0].any()
        if not bool(passed):
            wrong.append(f"it declares its gradient as '{gradient}', but none reaches the input")
    return wrong


def check_detector_defense(defended: nn.Module, gradient: GradientKind) -> list[str]:
    """What is wrong with a defense put in front of `BrightSquares`, a line each."""
    images, boxes = bright_squares(FEW)
    leaf = images.requires_grad_()
    output = defended.eval()(leaf)
    if not isinstance(output, DetectorOutput):
        return [f"behind it a model with a DetectorOutput returns {type(output).__name__}"]
    wrong = []
    # It may cost some detections, but whatever moves or resizes an image must move the boxes back.
    found = iou(output.detections["boxes"], boxes).amax((1, 2))
    if float(found.median()) < 0.5:
        wrong.append(f"boxes behind it do not fit the objects of the image before it: median IoU {found.median():.2f}")
    losses = output.loss_of(boxes, torch.zeros(FEW, 1, dtype=torch.int64))
    if gradient is not GradientKind.NONE:
        passed = losses.requires_grad and torch.autograd.grad(losses.sum(), leaf)[0].any()
        if not bool(passed):
            wrong.append(f"it declares its gradient as '{gradient}', but none of the training loss reaches the input")
    return wrong


def plain_detector() -> nn.Module:
    """The model a defense for detectors is checked in front of."""
    return BrightSquares().eval()


def plain_model() -> nn.Module:
    """The model a defense is checked in front of."""
    return HalfSpace().eval()


def plain_forecaster() -> nn.Module:
    """The model a defense for forecasters is checked in front of."""
    return LinearForecaster().eval()
