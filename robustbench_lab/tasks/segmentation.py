"""Semantic segmentation: images `[N, C, H, W]`, all of one size, to logits `[N, K, H, W]` of the same size.

Targets are masks, integers `[N, H, W]`: the class of each pixel, and 255 (`IGNORED`) where a pixel does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Estimate, Measured
from robustbench_lab.errors import SkipCell
from robustbench_lab.records import Finding, Outcomes, Severity
from robustbench_lab.tasks.class_masks import IGNORED, is_logit_maps, predicted_classes
from robustbench_lab.tasks.classification import PROBABILITY_TOLERANCE
from robustbench_lab.tasks.resampled_images import estimated_share, resampled_counts
from robustbench_lab.tasks.worst_case import broken_by_any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Segmentation:
    """All the core knows of segmentation."""

    name: str = "segmentation"
    default_objective: str = "untargeted"
    attacks_all: bool = True

    def kept(self, prediction: Any) -> Any:
        """Shape and summaries of the logits, whether they are finite or probabilities: logits are large."""
        if not is_logit_maps(prediction):
            return {"form": [_form(prediction)]}
        import torch

        sums = (prediction.sum(1) - 1).abs().amax((1, 2))
        return {
            "shape": torch.tensor(prediction.shape[1:]).repeat(len(prediction), 1),
            "numbers": torch.cat([prediction.mean((2, 3)), prediction.amax((2, 3))], dim=1),
            "finite": prediction.isfinite().all(1).all(1).all(1),
            "probabilities": (sums < PROBABILITY_TOLERANCE) & (prediction.amin((1, 2, 3)) >= 0),
        }

    def numbers(self, kept: Any) -> Tensor:
        """Mean and largest logit of each class, `[N, 2 K]`."""
        numbers: Tensor = kept["numbers"]
        return numbers

    def intact(self, prediction: Tensor, targets: Tensor) -> Tensor:
        """Whether more than 1% of the pixels that count are right, bool `[N]`; otherwise it is broken already."""
        from robustbench_lab.tasks.segmentation_objectives import Untargeted

        return ~Untargeted().succeeded(prediction, targets)

    def examine(self, kept: Any, targets: Tensor, classes: int | None) -> list[Finding]:
        """Form and size, number of classes, NaN, probabilities in place of logits."""
        if "form" in kept:
            text = f"a segmentation network must return float logits [N, K, H, W]; this model returns {kept['form'][0]}"
            return [_fatal("not-logit-maps", text)]
        count, *size = kept["shape"][0].tolist()
        if trouble := _mask_trouble(targets, count):
            return [_fatal("masks", trouble)]
        if size != list(targets.shape[1:]):
            maps, masks = (f"{height}x{width}" for height, width in (size, targets.shape[1:]))
            text = f"the model's maps are {maps}, the masks {masks}: resize the logits inside of the model"
            return [_fatal("map-size", text)]
        if not bool(kept["finite"].all()):
            return [_fatal("nan-logits", "the model returns NaN or infinite logits on clean data")]
        findings = []
        if classes is not None and count != classes:
            text = f"the model has {count} classes, the dataset {classes}: check that labels mean the same"
            findings.append(Finding("class-count", Severity.SUSPECT, text))
        if bool(kept["probabilities"].all()):
            text = "the model returns probabilities: return logits, since a softmax flattens the gradient"
            findings.append(Finding("probabilities", Severity.SUSPECT, text))
        return findings

    def measure(self, prediction: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Of each class the pixels that are right, predicted, and there: int32 `[N, K]` each."""
        count = prediction.shape[1]
        if trouble := _mask_trouble(targets, count):
            raise SkipCell(trouble)
        truth = targets.long().masked_fill(targets == IGNORED, -1)
        made = predicted_classes(prediction).masked_fill(truth < 0, -1)
        return {
            "right": _pixels_of_class(truth.masked_fill(made != truth, -1), count),
            "predicted": _pixels_of_class(made, count),
            "truth": _pixels_of_class(truth, count),
        }

    def columns(self, clean: Measured, attacked: Measured) -> Measured:
        """Pixels of each class before and after."""
        return {
            "truth": clean["truth"],
            "clean_right": clean["right"],
            "clean_predicted": clean["predicted"],
            "robust_right": attacked["right"],
            "robust_predicted": attacked["predicted"],
            "damage": attacked["damage"].astype(np.float32),
        }

    def worst_case(self, outcomes: Sequence[Outcomes]) -> Outcomes:
        """Of each image the attack with the most damage; never above the lowest mIoU of a single attack.

        mIoU is no mean over images, so the worst of each image need not be the worst of all: the lowest mIoU counts.
        """
        worst = np.argmax(np.stack([one.columns["damage"] for one in outcomes]), axis=0)
        rows = np.arange(len(worst))
        mixed = {name: np.stack([one.columns[name] for one in outcomes])[worst, rows] for name in outcomes[0].columns}
        contenders = [mixed, *(one.columns for one in outcomes)]
        lowest = min(contenders, key=lambda one: np.nan_to_num(_iou_of(one, "robust"), nan=np.inf))
        return broken_by_any(outcomes, lowest)

    def replicates(self, outcomes: Outcomes) -> NDArray[np.float64]:
        """The mIoU under attack on resampled images."""
        return _resampled_iou(outcomes.columns, "robust")


def mean_iou(right: NDArray[Any], predicted: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Mean intersection over union of the classes that are there or predicted, `[...]`; NaN where there is none.

    right, predicted, truth: pixels of each class over all images, `[..., K]`: classes count alike, as in Pascal VOC
    (Everingham et al. 2010), and one that is neither there nor predicted does not count, as in mmsegmentation.
    """
    union = predicted + truth - right
    classes = (union > 0).sum(-1)
    total = (right / np.maximum(union, 1)).sum(-1)
    mean: NDArray[np.float64] = np.where(classes > 0, total / np.maximum(classes, 1), np.nan)
    return mean


def clean_miou(outcomes: Outcomes) -> Estimate:
    """The mIoU of the clean images, with a 95% bootstrap interval over images."""
    return _estimated_iou(outcomes.columns, "clean")


def robust_miou(outcomes: Outcomes) -> Estimate:
    """The mIoU under attack, with a 95% bootstrap interval over images."""
    return _estimated_iou(outcomes.columns, "robust")


def clean_pixel_accuracy(outcomes: Outcomes) -> Estimate:
    """Share of all images' pixels that are right without attack, with a 95% bootstrap interval over images."""
    return _estimated_accuracy(outcomes.columns, "clean")


def robust_pixel_accuracy(outcomes: Outcomes) -> Estimate:
    """Share of all images' pixels that are right under attack, with a 95% bootstrap interval over images."""
    return _estimated_accuracy(outcomes.columns, "robust")


def _estimated_iou(columns: Measured, when: str) -> Estimate:
    return estimated_share(float(_iou_of(columns, when)), _resampled_iou(columns, when))


def _iou_of(columns: Measured, when: str) -> NDArray[np.float64]:
    return mean_iou(*(counts.sum(0) for counts in _counts(columns, when)))


def _resampled_iou(columns: Measured, when: str) -> NDArray[np.float64]:
    """`[R]`."""
    weights = resampled_counts(len(columns["truth"])).astype(np.float64)
    return mean_iou(*(weights @ counts for counts in _counts(columns, when)))


def _estimated_accuracy(columns: Measured, when: str) -> Estimate:
    right, _, truth = (counts.sum(1) for counts in _counts(columns, when))
    weights = resampled_counts(len(truth)).astype(np.float64)
    totals = weights @ truth
    replicates = (weights @ right)[totals > 0] / totals[totals > 0]
    return estimated_share(float(right.sum() / truth.sum()) if truth.sum() else float("nan"), replicates)


def _counts(columns: Measured, when: str) -> tuple[NDArray[np.float64], ...]:
    """Pixels right, predicted and there, `[N, K]` each; exact, since the largest sums are far below 2 ** 53."""
    names = (f"{when}_right", f"{when}_predicted", "truth")
    return tuple(columns[name].astype(np.float64) for name in names)


def _pixels_of_class(classes: Tensor, count: int) -> Tensor:
    """How many pixels `[N, H, W]` are of each class, int32 `[N, count]`; -1 is none of them."""
    import torch

    images = torch.arange(len(classes), device=classes.device)[:, None, None]
    place = (images * (count + 1) + classes + 1).flatten()
    counts = torch.bincount(place, minlength=len(classes) * (count + 1))
    return counts.view(-1, count + 1)[:, 1:].int()


def _mask_trouble(masks: Any, count: int) -> str | None:
    """What is wrong with masks for a model of so many classes."""
    if not hasattr(masks, "shape") or masks.ndim != 3 or masks.is_floating_point():
        return "masks must be integers [N, H, W], the class of each pixel"
    there = masks[masks != IGNORED]
    if there.numel() and not 0 <= int(there.min()) <= int(there.max()) < count:
        beyond = int(there.min()) if int(there.min()) < 0 else int(there.max())
        return f"a mask holds class {beyond}, but the model has {count} classes, from 0 ({IGNORED}: not counted)"
    return None


def _form(prediction: Any) -> str:
    if hasattr(prediction, "shape"):
        return f"{prediction.dtype} of shape {list(prediction.shape)}"
    return type(prediction).__name__


def _fatal(code: str, message: str) -> Finding:
    return Finding(code, Severity.FATAL, message)
