"""COCO's mean average precision of stored detections, by a maintained evaluator, and its bootstrap over images.

`hotcoco` matches detections with objects and gives the value (its arrays are bit by bit those of pycocotools). The
bootstrap draws images with replacement and accumulates their matches anew, as COCO's evaluation does: matching is by
image, so it need not be repeated.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.hardware.garbage import no_garbage
from robustbench_lab.tasks.resampled_images import RESAMPLES, resampled_counts

LARGE = 20_000
"""Detections from which there are fewer resamples."""
RESAMPLES_OF_LARGE = 200
MOST_OF_A_CLASS = 100
"""Detections of each class and image that COCO's evaluation looks at, the highest scores first."""
RECALLS = np.linspace(0.0, 1.0, 101)
IOUS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class StoredScenes:
    """Detections and objects of N images, as stored: labels count from 1 there, 0 stands for nothing."""

    boxes: NDArray[np.float32]
    """`[N, D, 4]` xyxy."""
    scores: NDArray[np.float32]
    """`[N, D]`."""
    labels: NDArray[np.int16]
    """`[N, D]`."""
    object_boxes: NDArray[np.float32]
    """`[N, M, 4]`."""
    object_labels: NDArray[np.int16]
    """`[N, M]`."""
    crowd: NDArray[np.bool_]
    """`[N, M]`."""


@dataclass(frozen=True)
class _ClassMatches:
    """Detections of one class over all images, in falling order of score."""

    image: NDArray[np.intp]
    """`[n]`: which image each is of."""
    matched: NDArray[np.bool_]
    """`[10, n]`, for each IoU threshold."""
    ignored: NDArray[np.bool_]
    """`[10, n]`."""
    objects: NDArray[np.int64]
    """`[N]`: objects to be found in each image."""


@dataclass(frozen=True)
class AveragePrecision:
    """The mAP of a set of images: NaN where no image has an object."""

    scenes: StoredScenes

    @cached_property
    def value(self) -> float:
        """COCO's AP at IoU .5 to .95."""
        return self._summary[0]

    @cached_property
    def value_at_50(self) -> float:
        """COCO's AP at IoU .5."""
        return self._summary[1]

    @cached_property
    def replicates(self) -> NDArray[np.float64]:
        """Of mAP at IoU .5 to .95 on resampled images, `[R]`: the same resamples for the same number of images."""
        replicates: NDArray[np.float64] = self._resampled.mean(axis=1)
        return replicates

    @cached_property
    def replicates_at_50(self) -> NDArray[np.float64]:
        """Of mAP at IoU .5 on resampled images, `[R]`."""
        return self._resampled[:, 0]

    @cached_property
    def _summary(self) -> tuple[float, float]:
        if not (self.scenes.object_labels[~self.scenes.crowd] > 0).any():
            return float("nan"), float("nan")
        precision = self._evaluated.eval["precision"][:, :, :, 0, -1]
        known = precision[:, :, (precision > -1).any(axis=(0, 1))]
        return float(known.mean()), float(known[0].mean())

    @cached_property
    def _evaluated(self) -> Any:
        from hotcoco import COCO, COCOeval

        # It reports on stdout, which belongs to results.
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(_ground_truth(self.scenes))
            evaluation = COCOeval(truth, truth.load_res(list(_results(self.scenes))), "bbox")
            # Objects of every size: reading the matches of the other three ranges takes most of the time.
            evaluation.params.area_rng = evaluation.params.area_rng[:1]
            evaluation.params.area_rng_lbl = evaluation.params.area_rng_lbl[:1]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation

    @cached_property
    def _resampled(self) -> NDArray[np.float64]:
        """AP of each IoU threshold on resampled images, the mean over classes, `[R, 10]`."""
        images = len(self.scenes.scores)
        resamples = RESAMPLES if np.count_nonzero(self.scenes.labels) < LARGE else RESAMPLES_OF_LARGE
        weights = resampled_counts(images, resamples)
        classes = [_resampled_precision(one, weights) for one in _matches(self._evaluated, images)]
        if not classes:
            return np.full((resamples, len(IOUS)), np.nan)
        with np.errstate(invalid="ignore"):
            return np.nanmean(np.stack(classes), axis=0) if len(classes) > 1 else classes[0]


def average_precision(scenes: StoredScenes) -> AveragePrecision:
    """Of some scenes; those asked for last are kept with what was computed of them."""
    arrays = (scenes.boxes, scenes.scores, scenes.labels, scenes.object_boxes, scenes.object_labels, scenes.crowd)
    digest = blake2b()
    for array in arrays:
        digest.update(repr((array.shape, array.dtype)).encode() + np.ascontiguousarray(array).tobytes())
    return _kept(_Keyed(digest.digest(), scenes))


@dataclass(frozen=True)
class _Keyed:
    """Scenes that are the same where their contents are."""

    key: bytes
    scenes: StoredScenes = field(compare=False)


@lru_cache(maxsize=8)
def _kept(keyed: _Keyed) -> AveragePrecision:
    return AveragePrecision(keyed.scenes)


def _resampled_precision(one: _ClassMatches, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """COCO's AP of one class, `[R, 10]`; NaN on resamples without an object of the class.

    The precision at each of 101 recalls is the highest at this recall or above (pycocotools, `accumulate`). It is
    attained at a hit, so the other detections only count as tried.
    """
    objects = weights @ one.objects
    drawn = weights[:, one.image]
    tried = drawn.cumsum(axis=1)
    recalls = _recalls_reached(objects)
    result = np.zeros((len(weights), len(IOUS)))
    for threshold, (matched, ignored) in enumerate(zip(one.matched, one.ignored, strict=True)):
        hit = np.flatnonzero(matched & ~ignored)
        if len(hit):
            hits = drawn[:, hit].cumsum(axis=1)
            precision = hits / np.maximum(tried[:, hit] - _ignored_before(drawn, ignored, hit), 1)
            highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            reached = np.ascontiguousarray(np.take_along_axis(recalls, hits, axis=1))  # the same rounding always
            result[:, threshold] = (highest * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
    result[objects == 0] = np.nan
    return result


def _recalls_reached(objects: NDArray[np.int64]) -> NDArray[np.intp]:
    """How many of the 101 recalls so many hits reach, by resample and hits, `[R, most objects + 1]`."""
    most = np.arange(objects.max(initial=0) + 1)
    return np.searchsorted(RECALLS, most / np.maximum(objects, 1)[:, None], side="right")


def _ignored_before(
    drawn: NDArray[np.int64], ignored: NDArray[np.bool_], hit: NDArray[np.intp]
) -> NDArray[np.int64] | int:
    """How many detections that do not count were drawn before each hit, `[R, hits]`."""
    places = np.flatnonzero(ignored)
    if not len(places):
        return 0
    before = np.pad(drawn[:, places].cumsum(axis=1), ((0, 0), (1, 0)))
    return before[:, np.searchsorted(places, hit)]


def _matches(evaluation: Any, images: int) -> Iterator[_ClassMatches]:
    """The evaluator's matches over all areas, of each class that has an object."""
    by_class: dict[int, list[Mapping[str, Any]]] = {}
    with no_garbage():
        for one in evaluation.eval_imgs:
            if one is not None:
                by_class.setdefault(one["category_id"], []).append(one)
    for ones in by_class.values():
        ones.sort(key=lambda one: one["image_id"])
        objects = np.zeros(images, dtype=np.int64)
        for one in ones:
            objects[one["image_id"] - 1] = np.count_nonzero(~np.asarray(one["gtIgnore"], dtype=bool))
        if objects.any():
            yield _of_class(ones, objects)


def _of_class(ones: Sequence[Mapping[str, Any]], objects: NDArray[np.int64]) -> _ClassMatches:
    scores = [np.asarray(one["dtScores"])[:MOST_OF_A_CLASS] for one in ones]
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    image = np.concatenate([np.full(len(part), one["image_id"] - 1) for part, one in zip(scores, ones, strict=True)])

    def joined(name: str) -> NDArray[np.bool_]:
        rows = ((match for one in ones for match in one[name][iou][:MOST_OF_A_CLASS]) for iou in range(len(IOUS)))
        return np.array([np.fromiter(row, dtype=bool, count=len(order)) for row in rows])[:, order]

    return _ClassMatches(image[order].astype(np.intp), joined("dtMatched"), joined("dtIgnore"), objects)


def _ground_truth(scenes: StoredScenes) -> dict[str, Any]:
    """COCO's form: ids count from 1, since evaluators take annotation 0 for none; boxes are x, y, width, height."""
    annotations: list[dict[str, Any]] = []
    for image, place in zip(*np.nonzero(scenes.object_labels), strict=True):
        box = _xywh(scenes.object_boxes[image, place])
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": int(image) + 1,
                "category_id": int(scenes.object_labels[image, place]),
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(scenes.crowd[image, place]),
            }
        )
    classes = sorted(
        {int(label) for labels in (scenes.object_labels, scenes.labels) for label in np.unique(labels)} - {0}
    )
    return {
        "images": [{"id": index + 1, "width": 0, "height": 0} for index in range(len(scenes.scores))],
        "annotations": annotations,
        "categories": [{"id": label, "name": str(label)} for label in classes],
    }


def _results(scenes: StoredScenes) -> Iterator[dict[str, Any]]:
    for image, place in zip(*np.nonzero(scenes.labels), strict=True):
        yield {
            "image_id": int(image) + 1,
            "category_id": int(scenes.labels[image, place]),
            "bbox": _xywh(scenes.boxes[image, place]),
            "score": float(scenes.scores[image, place]),
        }


def _xywh(box: NDArray[np.float32]) -> list[float]:
    left, top, right, bottom = (float(edge) for edge in box)
    return [left, top, right - left, bottom - top]
