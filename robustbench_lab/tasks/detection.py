"""Object detection: images `[N, C, H, W]` to a `DetectorOutput`; targets are boxes, labels and crowds.

Targets: `boxes` `[N, M, 4]` float32 xyxy in pixels, `labels` int64 `[N, M]` from 0 (-1: no object in this place),
`crowd` bool `[N, M]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Estimate, Measured
from robustbench_lab.records import Finding, Outcomes, Severity
from robustbench_lab.statistics import clopper_pearson, garwood, wider
from robustbench_lab.tasks.average_precision import AveragePrecision, StoredScenes, average_precision
from robustbench_lab.tasks.resampled_images import estimated, estimated_share, resampled_counts
from robustbench_lab.tasks.worst_case import broken_by_any

if TYPE_CHECKING:
    from torch import Tensor

NOTHING = -1
"""Label of a place without a detection or object; columns store labels from 1 and 0 for nothing."""


@dataclass(frozen=True)
class Detection:
    """All the core knows of detectors."""

    name: str = "detection"
    default_objective: str = "untargeted"
    attacks_all: bool = True

    def kept(self, prediction: Any) -> Any:
        """Detections, and for each class the highest and the mean score of all candidates."""
        from robustbench_lab.tasks.detector_output import DetectorOutput

        if not isinstance(prediction, DetectorOutput):
            return {"form": [type(prediction).__name__]}
        detections = prediction.detections
        if prediction.logits is None:
            return {**detections, "numbers": detections["scores"]}
        import torch

        scores = prediction.logits.detach().sigmoid()
        numbers = torch.cat([scores.amax(1), scores.mean(1)], dim=1)
        return {**detections, "numbers": numbers, "known": torch.full((len(scores), 1), scores.shape[2])}

    def numbers(self, kept: Any) -> Tensor:
        """Scores of candidates, `[N, 2 K]`: these change smoothly, which detections do not."""
        numbers: Tensor = kept["numbers"]
        return numbers

    def intact(self, prediction: Any, targets: Any) -> Tensor:
        """Whether at least one of the objects is found, or there is none to be found."""
        from robustbench_lab.tasks.detection_measures import Matches, scene_of

        scene = scene_of(targets)
        return Matches(scene, prediction.detections).found.any(1) | ~scene.real.any(1)

    def examine(self, kept: Any, targets: Any, classes: int | None) -> list[Finding]:
        """Form, finite numbers, labels, boxes in pixels, whether anything is found at all."""
        if "form" in kept:
            text = f"a detector must return a DetectorOutput; this model returns {kept['form'][0]}"
            return [Finding("not-detections", Severity.FATAL, text)]
        if not bool(kept["boxes"].isfinite().all()) or not bool(kept["numbers"].isfinite().all()):
            return [Finding("nan-detections", Severity.FATAL, "the model returns NaN or infinite boxes or scores")]
        largest = int(kept["labels"].max())
        if classes is not None and largest >= classes:
            text = (
                f"the model reports label {largest}, the dataset has {classes} classes: check that labels mean the same"
            )
            return [Finding("class-count", Severity.FATAL, text)]
        return _unknown_classes(kept, targets, classes) or _nothing_found(kept, targets)

    def measure(self, prediction: Any, targets: Any) -> Mapping[str, Tensor]:
        """Detections, objects, and what the working point makes of them."""
        from robustbench_lab.tasks.detection_measures import Matches, scene_of

        scene = scene_of(targets)
        matches = Matches(scene, prediction.detections)
        count = prediction.suppression_count()
        return {
            **({} if count is None else {"nms_candidates": count}),
            **prediction.detections,
            "object_boxes": targets["boxes"],
            "object_labels": targets["labels"],
            "object_crowd": scene.crowd,
            "found": matches.found,
            "covered": matches.covered,
            "false_positives": matches.false_positives,
            "fabricated": matches.fabricated,
        }

    def columns(self, clean: Measured, attacked: Measured) -> Measured:
        """Detections before and after, objects, and what became of each."""
        found = clean["found"]
        return {
            **_flood_columns(clean, attacked),
            **_detection_columns("clean", clean),
            **_detection_columns("robust", attacked),
            "object_boxes": clean["object_boxes"].astype(np.float32),
            "object_labels": (clean["object_labels"] - NOTHING).astype(np.int16),
            "object_crowd": clean["object_crowd"],
            "found": found,
            "vanished": found & ~attacked["covered"],
            "mislabelled": found & attacked["covered"] & ~attacked["found"],
            "clean_false_positives": clean["false_positives"].astype(np.int16),
            "false_positives": attacked["false_positives"].astype(np.int16),
            "fabricated": attacked["fabricated"].astype(np.int16),
            "damage": attacked["damage"].astype(np.float32),
        }

    def worst_case(self, outcomes: Sequence[Outcomes]) -> Outcomes:
        """Of each image the attack with the most damage; never above the lowest mAP of a single attack.

        mAP is no mean over images, so the worst of each image need not be the worst of all: the detections of the
        lowest mAP count for it. What became of objects stays that of the most damage, which need not cost any mAP.
        """
        worst = np.argmax(np.stack([one.columns["damage"] for one in outcomes]), axis=0)
        # Results of before a column was there lack it.
        common = [name for name in outcomes[0].columns if all(name in one.columns for one in outcomes)]
        mixed = {name: _chosen([one.columns[name] for one in outcomes], worst) for name in common}
        contenders = [mixed, *(one.columns for one in outcomes)]
        lowest = min(contenders, key=lambda one: _sortable(_precision(one, "robust").value))
        detections = {name: lowest[name] for name in ("robust_boxes", "robust_scores", "robust_labels")}
        return broken_by_any(outcomes, {**mixed, **detections})

    def replicates(self, outcomes: Outcomes) -> NDArray[np.float64]:
        """The mAP under attack on resampled images."""
        return _precision(outcomes.columns, "robust").replicates


def clean_map(outcomes: Outcomes) -> Estimate:
    """COCO mAP@[.5:.95] of the clean images, with a 95% bootstrap interval over images."""
    one = _precision(outcomes.columns, "clean")
    return estimated_share(one.value, one.replicates)


def robust_map(outcomes: Outcomes) -> Estimate:
    """COCO mAP@[.5:.95] under attack, with a 95% bootstrap interval over images."""
    one = _precision(outcomes.columns, "robust")
    return estimated_share(one.value, one.replicates)


def clean_map50(outcomes: Outcomes) -> Estimate:
    """The mAP at IoU 0.5 of the clean images, with a 95% bootstrap interval over images."""
    one = _precision(outcomes.columns, "clean")
    return estimated_share(one.value_at_50, one.replicates_at_50)


def robust_map50(outcomes: Outcomes) -> Estimate:
    """The mAP at IoU 0.5 under attack, with a 95% bootstrap interval over images."""
    one = _precision(outcomes.columns, "robust")
    return estimated_share(one.value_at_50, one.replicates_at_50)


def vanished_rate(outcomes: Outcomes) -> Estimate:
    """Of the objects found in clean images, the share that no reported detection covers under attack."""
    return _per_object(outcomes.columns["vanished"], outcomes.columns["found"])


def mislabelled_rate(outcomes: Outcomes) -> Estimate:
    """Of the objects found in clean images, the share that is covered under attack by wrong labels only."""
    return _per_object(outcomes.columns["mislabelled"], outcomes.columns["found"])


def fabricated_rate(outcomes: Outcomes) -> Estimate:
    """Reported detections under attack that cover no object at all, for each object found in clean images."""
    invented, found = outcomes.columns["fabricated"], outcomes.columns["found"].sum(1)
    by_image = estimated(*_ratio(invented, found))
    if not found.any():
        return by_image
    return wider(by_image, garwood(int(invented.sum(dtype=np.int64)), int(found.sum())))


def false_positives(outcomes: Outcomes) -> Estimate:
    """Reported detections under attack that cover no object, or give it a wrong label, for each image."""
    alarms = outcomes.columns["false_positives"]
    by_image = estimated(*_ratio(alarms, np.ones(len(outcomes))))
    return wider(by_image, garwood(int(alarms.sum(dtype=np.int64)), len(outcomes)))


def clean_nms_candidates(outcomes: Outcomes) -> Estimate:
    """Candidates that go to non-maximum suppression for each clean image, with a 95% bootstrap interval over images."""
    return _each_image(outcomes.columns.get("clean_nms_candidates"))


def nms_candidates(outcomes: Outcomes) -> Estimate:
    """The same under attack."""
    return _each_image(outcomes.columns.get("nms_candidates"))


def _each_image(counts: NDArray[np.int32] | None) -> Estimate:
    """The mean of counts `[N]`; NaN where the detector does not tell them."""
    if counts is None:
        return Estimate(float("nan"), float("nan"), float("nan"))
    return estimated(*_ratio(counts.astype(np.float64), np.ones(len(counts))))


def _per_object(lost: NDArray[np.bool_], found: NDArray[np.bool_]) -> Estimate:
    """A share of objects with the wider of two intervals: by images, and the exact one for objects by themselves."""
    by_image = estimated_share(*_ratio(lost.sum(1), found.sum(1)))
    if not found.any():
        return by_image
    return wider(by_image, clopper_pearson(int(lost.sum()), int(found.sum())))


def _ratio(parts: NDArray[Any], wholes: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
    """Sum over images of the one by the sum of the other, and on resampled images; NaN where there is nothing."""
    weights = resampled_counts(len(parts))
    totals = weights @ wholes
    replicates = (weights @ parts)[totals > 0] / totals[totals > 0]
    return float(parts.sum() / wholes.sum()) if wholes.sum() else float("nan"), replicates


def _flood_columns(clean: Measured, attacked: Measured) -> dict[str, NDArray[Any]]:
    """What goes to suppression, where the detector tells it."""
    if "nms_candidates" not in clean:
        return {}
    return {
        "clean_nms_candidates": clean["nms_candidates"].astype(np.int32),
        "nms_candidates": attacked["nms_candidates"].astype(np.int32),
    }


def _detection_columns(when: str, measured: Measured) -> dict[str, NDArray[Any]]:
    """Detections as stored, without the places that no image uses."""
    most = int((measured["scores"] > 0).sum(1).max(initial=0))
    return {
        f"{when}_boxes": measured["boxes"][:, :most].astype(np.float32),
        f"{when}_scores": measured["scores"][:, :most].astype(np.float32),
        f"{when}_labels": (measured["labels"][:, :most] - NOTHING).astype(np.int16),
    }


def _precision(columns: Measured, when: str) -> AveragePrecision:
    return average_precision(
        StoredScenes(
            boxes=columns[f"{when}_boxes"],
            scores=columns[f"{when}_scores"],
            labels=columns[f"{when}_labels"],
            object_boxes=columns["object_boxes"],
            object_labels=columns["object_labels"],
            crowd=columns["object_crowd"],
        )
    )


def _chosen(parts: Sequence[NDArray[Any]], which: NDArray[np.intp]) -> NDArray[Any]:
    """Row i of part `which[i]`; parts are filled with zeros to one size."""
    sizes = np.max([part.shape for part in parts], axis=0)
    stacked = np.stack(
        [np.pad(part, [(0, size - own) for size, own in zip(sizes, part.shape, strict=True)]) for part in parts]
    )
    chosen: NDArray[Any] = stacked[which, np.arange(len(which))]
    return chosen


def _sortable(value: float) -> float:
    return np.inf if np.isnan(value) else value


def _unknown_classes(kept: Any, targets: Any, classes: int | None) -> list[Finding]:
    """Objects that the detector has no output for: they would count as never found."""
    if "known" not in kept:
        return []
    known, largest = int(kept["known"][0]), int(targets["labels"].max()) if targets["labels"].numel() else NOTHING
    if largest >= known:
        text = f"an object has label {largest}, the model knows {known} classes: check that labels mean the same"
        return [Finding("class-count", Severity.FATAL, text)]
    if classes is not None and classes > known:
        text = f"the dataset has {classes} classes, the model knows {known}: objects of the others count as never found"
        return [Finding("class-count", Severity.SUSPECT, text)]
    return []


def _nothing_found(kept: Any, targets: Any) -> list[Finding]:
    from robustbench_lab.tasks.detection_measures import Matches, scene_of

    scene = scene_of(targets)
    objects = int(scene.real.sum())
    if objects == 0 or bool(Matches(scene, kept).found.any()):
        return []
    if 0 < float(kept["boxes"].max()) <= 2.0:
        text = "the model's boxes lie within 0..2: they must be in pixels of the image, not shares of it"
        return [Finding("boxes-not-in-pixels", Severity.FATAL, text)]
    text = f"none of {objects} objects is found: check normalisation, the order of labels, and boxes in pixels (xyxy)"
    return [Finding("nothing-found", Severity.SUSPECT, text)]
