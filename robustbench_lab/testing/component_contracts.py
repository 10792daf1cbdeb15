"""What models, datasets and defenses must keep to. Shipped for authors of plugins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Dataset, GradientKind
from robustbench_lab.evaluation.dataset_form import wrong_dataset, wrong_labels, wrong_samples
from robustbench_lab.evaluation.preflight import check_samples
from robustbench_lab.tasks.boxes import iou
from robustbench_lab.tasks.class_masks import IGNORED
from robustbench_lab.tasks.detector_output import DetectorOutput
from robustbench_lab.tasks.forecast_output import point
from robustbench_lab.testing.bright_squares import BrightSquares, bright_squares
from robustbench_lab.testing.known_forecasters import HISTORY, HORIZON, LinearForecaster
from robustbench_lab.testing.known_models import SHAPE, HalfSpace

FEW = 8


def check_dataset(dataset: Dataset, again: Dataset | None = None, task: str | None = None) -> list[str]:
    """What is wrong with a dataset, a line each. again: the same one, made a second time. task: what it is for."""
    if wrong := list(wrong_dataset(dataset)):
        return wrong
    few = list(range(min(FEW, len(dataset.sample_ids))))
    if not few:
        return ["it has no samples"]
    samples = dataset.load(few)
    wrong = list(wrong_samples(samples, len(few))) or [one.message for one in check_samples(samples, dataset.bounds)]
    if wrong:
        return wrong
    backwards = dataset.load(few[::-1]).inputs.flip(0)
    if backwards.shape == samples.inputs.shape and not torch.equal(backwards, samples.inputs):
        wrong.append("load(indices) must return the samples in the order asked for, the same at every call")
    labels = isinstance(samples.targets, Tensor) and samples.targets.ndim == 1 and dataset.classes is not None
    if labels or task == "classification":
        wrong += wrong_labels(samples.targets)
    wrong += _wrong_targets(samples.targets, dataset.classes)
    if again is not None and not torch.equal(again.load(few).inputs, samples.inputs):
        wrong.append("made a second time it holds other samples: seed what it draws, or keep it in a file")
    return wrong


def _wrong_targets(targets: Any, classes: int | None) -> Iterator[str]:
    if classes is None or not isinstance(targets, Tensor) or targets.is_floating_point():
        return
    if targets.ndim == 1 and bool((targets >= classes).any()):
        yield f"labels must lie in 0..{classes - 1}, for its {classes} classes"
    if targets.ndim == 3:
        there = targets[targets != IGNORED]
        if not bool(((there >= 0) & (there < classes)).all()):
            yield f"masks must lie in 0..{classes - 1}, for its {classes} classes, or be {IGNORED}: not counted"


def check_defense(defended: nn.Module, gradient: GradientKind, *, randomized: bool) -> list[str]:
    """What is wrong with a defense put in front of a `HalfSpace`, a line each."""
    x = torch.rand(FEW, *SHAPE, generator=torch.Generator().manual_seed(0))
    if wrong := _careless(defended.eval(), x):
        return [wrong]
    prediction = defended(x.requires_grad_())
    if prediction.shape != (FEW, 2):
        return [f"behind it a model with logits [{FEW}, 2] returns {list(prediction.shape)}"]
    return _declared_otherwise(defended, x, prediction, gradient, randomized=randomized)


def check_forecaster_defense(defended: nn.Module, gradient: GradientKind, *, randomized: bool) -> list[str]:
    """What is wrong with a defense put in front of a `LinearForecaster`, a line each."""
    x = torch.randn(FEW, HISTORY, 2, generator=torch.Generator().manual_seed(0))
    if wrong := _careless(defended.eval(), x):
        return [wrong]
    prediction = point(defended(x.requires_grad_()))
    if prediction.shape != (FEW, HORIZON, 2):
        return [f"behind it a model with forecasts [{FEW}, {HORIZON}, 2] returns {list(prediction.shape)}"]
    return _declared_otherwise(defended, x, prediction, gradient, randomized=randomized)


def _careless(defended: nn.Module, x: Tensor) -> str | None:
    """What a defense does beside its work, when it is called on `x`."""
    before = x.clone()
    with torch.no_grad():
        defended(x)
    if not torch.equal(x, before):
        return "it changes its input in place: let it work on a copy"
    if any(module.training for module in defended.modules()):
        return "it goes to training mode when it is called: leave the mode as it is"
    return None


def _declared_otherwise(
    defended: nn.Module, x: Tensor, prediction: Tensor, gradient: GradientKind, *, randomized: bool
) -> list[str]:
    """Where a defense is not what its spec says. prediction: of `x`, a leaf with gradient."""
    if not bool(prediction.isfinite().all()):
        return ["behind it a model returns NaN or infinite numbers"]
    wrong = []
    again = defended(x)
    differs = not torch.equal(prediction, again if isinstance(again, Tensor) else point(again))
    if differs and not randomized:
        wrong.append("repeated passes differ: declare randomized=True")
    elif not randomized:
        with torch.no_grad():
            alone = defended(x[:1])
        alone = alone if isinstance(alone, Tensor) else point(alone)
        if alone.shape != prediction[:1].shape or not torch.allclose(alone, prediction[:1], rtol=1e-3, atol=1e-5):
            wrong.append("what it makes of a sample depends on the others in its batch: use no statistics of the batch")
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
