"""mAP: equal to pycocotools and faster-coco-eval, at the edges too; the bootstrap equal to resampled images."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from robustbench_lab.tasks import average_precision
from robustbench_lab.tasks.average_precision import AveragePrecision, StoredScenes
from robustbench_lab.tasks.resampled_images import resampled_counts


def scenes(seed: int, images: int = 12, detections: int = 15, objects: int = 5, classes: int = 3) -> StoredScenes:
    """Objects, and detections near them, many of them tied in score, some with wrong labels; some crowds."""
    rng = np.random.default_rng(seed)
    corner = 200 * rng.random((images, objects, 2))
    truth = np.concatenate([corner, corner + 10 + 60 * rng.random((images, objects, 2))], axis=2)
    truth_labels = rng.integers(0, classes + 1, (images, objects))
    about = rng.integers(0, objects, (images, detections))
    found = np.take_along_axis(truth, about[..., None], axis=1) + rng.normal(0, 4, (images, detections, 4))
    found[..., 2:] = np.maximum(found[..., 2:], found[..., :2] + 1)
    right = np.take_along_axis(truth_labels, about, axis=1)
    labels = np.where(rng.random(about.shape) < 0.7, right, rng.integers(0, classes + 1, about.shape))
    return StoredScenes(
        boxes=found.astype(np.float32),
        scores=np.round(0.01 + 0.98 * rng.random(about.shape), 1).astype(np.float32),
        labels=labels.astype(np.int16),
        object_boxes=truth.astype(np.float32),
        object_labels=truth_labels.astype(np.int16),
        crowd=(rng.random(truth_labels.shape) < 0.1) & (truth_labels > 0),
    )


def of_images(whole: StoredScenes, index: NDArray[np.int64]) -> StoredScenes:
    return StoredScenes(**{field.name: getattr(whole, field.name)[index] for field in fields(whole)})


def by_reference(library: str, given: StoredScenes) -> tuple[float, float]:
    """AP and AP50 as another evaluator has them."""
    truth = average_precision._ground_truth(given)
    results = list(average_precision._results(given))
    with contextlib.redirect_stdout(io.StringIO()):
        if library == "pycocotools":
            coco_module = pytest.importorskip("pycocotools.coco")
            evaluator: Any = pytest.importorskip("pycocotools.cocoeval").COCOeval
            coco = coco_module.COCO()
            coco.dataset = truth
            coco.createIndex()
        else:
            faster = pytest.importorskip("faster_coco_eval")
            evaluator, coco = faster.COCOeval_faster, faster.COCO(truth)
        evaluation = evaluator(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


@pytest.mark.parametrize("library", ["pycocotools", "faster-coco-eval"])
@pytest.mark.parametrize("seed", range(6))
def test_map_equals_that_of_other_evaluators(library: str, seed: int) -> None:
    given = scenes(seed)
    ours = AveragePrecision(given)
    assert (ours.value, ours.value_at_50) == pytest.approx(by_reference(library, given), abs=1e-9)


def test_more_than_100_detections_of_a_class_are_cut_as_in_pycocotools() -> None:
    given = scenes(1, images=3, detections=300, objects=4, classes=1)
    ours = AveragePrecision(given)
    assert (ours.value, ours.value_at_50) == pytest.approx(by_reference("pycocotools", given), abs=1e-9)
    assert _accumulated(given, np.ones((1, 3), dtype=np.int64)) == pytest.approx(ours.value, abs=1e-12)


def test_a_perfect_vanishing_attack_leaves_no_map() -> None:
    given = scenes(2)
    gone = replace(given, labels=np.zeros_like(given.labels), scores=np.zeros_like(given.scores))
    ours = AveragePrecision(gone)
    assert (ours.value, ours.value_at_50) == (0.0, 0.0)
    assert (ours.replicates == 0).all()


def test_detections_without_any_place_for_them_are_no_detections() -> None:
    given = scenes(2)
    none = replace(given, boxes=given.boxes[:, :0], scores=given.scores[:, :0], labels=given.labels[:, :0])
    assert AveragePrecision(none).value == 0.0


def test_without_objects_there_is_no_map() -> None:
    given = scenes(3)
    empty = replace(given, object_labels=np.zeros_like(given.object_labels), crowd=np.zeros_like(given.crowd))
    assert math.isnan(AveragePrecision(empty).value)
    crowds_only = replace(given, crowd=given.object_labels > 0)
    assert math.isnan(AveragePrecision(crowds_only).value)


def test_the_objects_themselves_have_a_map_of_one() -> None:
    given = scenes(4)
    labels = np.where(given.crowd, 0, given.object_labels).astype(np.int16)
    truth = replace(given, boxes=given.object_boxes, labels=labels, scores=np.full(labels.shape, 0.9, np.float32))
    assert AveragePrecision(truth).value == pytest.approx(1.0)
    assert AveragePrecision(truth).replicates == pytest.approx(1.0)


def _accumulated(given: StoredScenes, counts: NDArray[np.int64]) -> float:
    evaluated = AveragePrecision(given)._evaluated
    by_class = [
        average_precision._resampled_precision(one, counts)
        for one in average_precision._matches(evaluated, len(given.scores))
    ]
    return float(np.nanmean(np.stack(by_class), axis=0).mean())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_the_bootstrap_accumulates_as_the_evaluator_does(seed: int) -> None:
    given = scenes(seed)
    once = np.ones((1, len(given.scores)), dtype=np.int64)
    assert _accumulated(given, once) == pytest.approx(AveragePrecision(given).value, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_a_resample_is_the_map_of_its_images(seed: int) -> None:
    given = scenes(seed)
    # Without ties: among equal scores the order of images decides, and repeated images change it.
    distinct = np.random.default_rng(seed).permutation(given.scores.size).reshape(given.scores.shape)
    given = replace(given, scores=((1 + distinct) / (2 + given.scores.size)).astype(np.float32))
    counts = resampled_counts(len(given.scores), 1, seed)
    drawn = of_images(given, np.repeat(np.arange(len(given.scores)), counts[0]))
    expected = AveragePrecision(drawn).value
    assert _accumulated(given, counts) == pytest.approx(expected, abs=1e-9)


def test_equal_numbers_of_images_are_resampled_alike_whatever_the_number_of_resamples() -> None:
    assert (resampled_counts(20, 30)[:10] == resampled_counts(20, 10)).all()


def test_replicates_lie_around_the_value() -> None:
    ours = AveragePrecision(scenes(5, images=60))
    low, high = np.quantile(ours.replicates, [0.025, 0.975])
    assert low < ours.value < high
    assert 0.003 < ours.replicates.std() < 0.1
