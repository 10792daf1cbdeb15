"""mAP beside pycocotools and faster-coco-eval, on real objects, with crowds, ties and floods."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rbl_detection_data.yolo import yolo
from rbl_reference.scene_fcos import scene_fcos
from rbl_reference.scenes import DigitScenes
from robustbench_lab.tasks import detection
from robustbench_lab.tasks.average_precision import AveragePrecision, StoredScenes, average_precision
from robustbench_lab.tasks.detection import Detection
from robustbench_lab.tasks.detector_output import padded

SIDE = 100.0
Oracle = Callable[[StoredScenes], tuple[float, float]]


def scenes_of(
    objects: list[list[tuple[list[float], int, bool]]], detections: list[list[tuple[list[float], float, int]]]
) -> StoredScenes:
    """For each image its objects (box, label from 1, crowd) and its detections (box, score, label from 1)."""
    images, most = len(objects), max(map(len, objects), default=0)
    reported = max(map(len, detections), default=0)
    scenes = StoredScenes(
        boxes=np.zeros((images, reported, 4), np.float32),
        scores=np.zeros((images, reported), np.float32),
        labels=np.zeros((images, reported), np.int16),
        object_boxes=np.zeros((images, most, 4), np.float32),
        object_labels=np.zeros((images, most), np.int16),
        crowd=np.zeros((images, most), np.bool_),
    )
    for image, ones in enumerate(objects):
        for place, (box, label, crowd) in enumerate(ones):
            scenes.object_boxes[image, place], scenes.object_labels[image, place] = box, label
            scenes.crowd[image, place] = crowd
    for image, found in enumerate(detections):
        for place, (box, score, label) in enumerate(sorted(found, key=lambda one: -one[1])):
            scenes.boxes[image, place], scenes.scores[image, place] = box, score
            scenes.labels[image, place] = label
    return scenes


def coco_form(scenes: StoredScenes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and results as the COCO evaluators read them. Ids count from 1: 0 stands for no match in them."""

    def xywh(box: NDArray[np.float32]) -> list[float]:
        left, top, right, bottom = box.astype(np.float64)
        return [left, top, right - left, bottom - top]

    annotations: list[dict[str, Any]] = []
    for image, place in np.argwhere(scenes.object_labels):
        box = xywh(scenes.object_boxes[image, place])
        about = {"image_id": int(image) + 1, "category_id": int(scenes.object_labels[image, place]), "bbox": box}
        crowd = int(scenes.crowd[image, place])
        annotations.append({**about, "id": len(annotations) + 1, "area": box[2] * box[3], "iscrowd": crowd})
    results = [
        {
            "image_id": int(image) + 1,
            "category_id": int(scenes.labels[image, place]),
            "bbox": xywh(scenes.boxes[image, place]),
            "score": float(scenes.scores[image, place]),
        }
        for image, place in np.argwhere(scenes.labels)
    ]
    classes = sorted({one["category_id"] for one in [*annotations, *results]})
    truth = {
        "images": [{"id": number + 1, "width": SIDE, "height": SIDE} for number in range(len(scenes.labels))],
        "annotations": annotations,
        "categories": [{"id": label, "name": str(label)} for label in classes],
    }
    return truth, results


def evaluated(coco_class: Any, evaluation_class: Any, scenes: StoredScenes) -> tuple[float, float]:
    truth_form, results = coco_form(scenes)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class()
        truth.dataset = truth_form
        truth.createIndex()
        evaluation = evaluation_class(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def by_pycocotools(scenes: StoredScenes) -> tuple[float, float]:
    """mAP@[.5:.95] and mAP at .5, as pycocotools says."""
    return evaluated(pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval, scenes)


def by_faster_coco_eval(scenes: StoredScenes) -> tuple[float, float]:
    module: ModuleType = faster_coco_eval
    return evaluated(module.COCO, module.COCOeval_faster, scenes)


ORACLES = pytest.mark.parametrize("oracle", [by_pycocotools, by_faster_coco_eval])


def same(found: AveragePrecision, wanted: tuple[float, float]) -> None:
    assert (found.value, found.value_at_50) == pytest.approx(wanted, abs=1e-9)


# ---------------------------------------------------------------- coco128


@pytest.fixture(scope="module")
def coco128(shared_folder: Any) -> list[list[tuple[list[float], int, bool]]]:
    """Its objects, some of them made crowds."""
    folder = shared_folder / "data" / "coco128"
    if not folder.is_dir():
        pytest.skip(f"coco128 is not at {folder}")
    with pytest.warns(UserWarning, match="without a label file"):
        dataset = yolo(str(folder))
    rng = np.random.default_rng(0)
    return [
        [
            (box.tolist(), int(label) + 1, bool(rng.random() < 0.03))
            for box, label in zip(image.boxes, image.labels, strict=True)
        ]
        for image in dataset.images
    ]


def detections_of(
    objects: list[list[tuple[list[float], int, bool]]], *, invented: int = 2, levels: int = 30, seed: int = 1
) -> list[list[tuple[list[float], float, int]]]:
    """Detections as a fair detector makes them: most objects found, boxes a little off, labels sometimes wrong, some
    found twice, some invented; scores on few levels, so that many are tied."""
    rng = np.random.default_rng(seed)
    found = []
    for ones in objects:
        here: list[tuple[list[float], float, int]] = []
        for box, label, _ in ones:
            for _ in range(rng.choice(3, p=[0.2, 0.6, 0.2])):
                moved = np.array(box) + rng.normal(0, 0.08, 4) * np.tile(np.subtract(box[2:], box[:2]), 2)
                said = label if rng.random() < 0.85 else int(rng.integers(1, 81))
                here.append((moved.tolist(), float(np.ceil(rng.beta(2, 1.5) * levels) / levels), said))
        for _ in range(rng.poisson(invented)):
            corner, size = rng.uniform(0, 400, 2), rng.uniform(5, 200, 2)
            score = float(np.ceil(rng.beta(1, 3) * levels) / levels)
            here.append(([*corner, *(corner + size)], score, int(rng.integers(1, 81))))
        found.append(here)
    return found


@ORACLES
def test_map_on_coco128_is_that_of_the_reference(oracle: Oracle, coco128: Any) -> None:
    scenes = scenes_of(coco128, detections_of(coco128))
    found = average_precision(scenes)
    assert 0.2 < found.value < found.value_at_50 < 0.9
    same(found, oracle(scenes))


@ORACLES
def test_a_flood_of_detections_counts_as_in_the_reference(oracle: Oracle, coco128: Any) -> None:
    few = coco128[:20]
    flood = detections_of(few, invented=0)
    rng = np.random.default_rng(2)
    for ones, objects in zip(flood, few, strict=True):
        for _ in range(130):  # of one class: evaluation looks at the best 100 of each class and image
            corner, size = rng.uniform(0, 400, 2), rng.uniform(5, 200, 2)
            label = objects[0][1] if objects else 1
            ones.append(([*corner, *(corner + size)], float(rng.uniform(0.3, 1)), label))
    scenes = scenes_of(few, flood)
    assert (scenes.labels > 0).sum(1).min() > 100
    same(average_precision(scenes), oracle(scenes))


# ---------------------------------------------------------------- edges

FULL = [0.0, 0.0, SIDE, SIDE]
BOX = [10.0, 10.0, 50.0, 40.0]


def test_no_images_have_no_map() -> None:
    assert np.isnan(average_precision(scenes_of([], [])).value)


@ORACLES
def test_detections_of_classes_without_objects_do_not_count(oracle: Oracle) -> None:
    scenes = scenes_of([[(BOX, 2, False)]], [[(BOX, 0.8, 2), (FULL, 0.9, 7)]])
    same(average_precision(scenes), oracle(scenes))
    assert average_precision(scenes).value == pytest.approx(1)


@ORACLES
def test_detections_in_a_crowd_are_no_false_alarms(oracle: Oracle) -> None:
    inside = [12.0, 12.0, 20.0, 20.0]
    scenes = scenes_of(
        [[(BOX, 1, True), ([60.0, 60.0, 90.0, 90.0], 1, False)]],
        [[(inside, 0.9, 1), (inside, 0.8, 1), ([60.0, 60.0, 90.0, 90.0], 0.7, 1)]],
    )
    same(average_precision(scenes), oracle(scenes))
    assert average_precision(scenes).value == pytest.approx(1)


@ORACLES
@pytest.mark.parametrize("first", [True, False])
def test_tied_scores_are_taken_in_the_order_of_the_images(oracle: Oracle, first: bool) -> None:
    right = [(BOX, 1, False)], [(BOX, 0.5, 1)]
    wrong: Any = [], [([60.0, 60.0, 90.0, 90.0], 0.5, 1)]
    images = [right, wrong] if first else [wrong, right]
    scenes = scenes_of([objects for objects, _ in images], [found for _, found in images])
    same(average_precision(scenes), oracle(scenes))
    assert average_precision(scenes).value == pytest.approx(1 if first else 0.5)


def test_a_score_that_is_no_number_is_no_detection() -> None:
    boxes = torch.tensor([BOX, FULL])
    one = padded([(boxes, torch.tensor([0.9, torch.nan]), torch.tensor([0, 0]))])
    assert one["labels"][0].tolist().count(-1) == one["labels"].shape[1] - 1
    stored = StoredScenes(
        boxes=one["boxes"].numpy(),
        scores=one["scores"].numpy(),
        labels=(one["labels"] + 1).numpy().astype(np.int16),
        object_boxes=np.array([[BOX]], np.float32),
        object_labels=np.array([[1]], np.int16),
        crowd=np.array([[False]]),
    )
    assert average_precision(stored).value == pytest.approx(1)
    one["scores"][0, 0] = torch.nan  # written past the task's own form: refused, never a number
    with pytest.raises(ValueError, match="NaN"):
        _ = average_precision(stored).value


Boxes = st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(1, 9)] * 2).map(
    lambda one: [10.0 * one[0], 10.0 * one[1], 10.0 * (one[0] + one[2]), 10.0 * (one[1] + one[3])]
)
Objects = st.lists(st.tuples(Boxes, st.integers(1, 3), st.booleans()), max_size=4)
Found = st.lists(st.tuples(Boxes, st.sampled_from([0.25, 0.5, 0.75, 1.0]), st.integers(1, 3)), max_size=5)


@settings(max_examples=60, deadline=None)
@given(images=st.lists(st.tuples(Objects, Found), min_size=1, max_size=4))
def test_whatever_lies_in_the_images_the_references_agree(images: list[Any]) -> None:
    scenes = scenes_of([one for one, _ in images], [found for _, found in images])
    ours = average_precision(scenes)
    if not (scenes.object_labels[~scenes.crowd] > 0).any():
        assert np.isnan(ours.value)
    elif not scenes.labels.any():
        assert ours.value == 0
    else:
        same(ours, by_pycocotools(scenes))
        same(ours, by_faster_coco_eval(scenes))


# ---------------------------------------------------------------- a real detector


@pytest.fixture(scope="module")
def on_its_scenes() -> StoredScenes:
    """What the bundled detector reports on the first test scenes."""
    task, samples = Detection(), DigitScenes(scenes=20).load(range(20))
    with torch.no_grad():
        measured = task.measure(scene_fcos()(samples.inputs), samples.targets)
    measure = {name: value.numpy() for name, value in measured.items()}
    columns = task.columns(measure, {**measure, "damage": measure["false_positives"]})
    return detection._precision(columns, "clean").scenes


@pytest.fixture(scope="module")
def on_coco128(shared_folder: Any) -> StoredScenes:
    """What an SSDLite that was trained on these images reports on them (benchmarks/train_coco128.py)."""
    folder = shared_folder / "data" / "coco128"
    if not folder.is_dir():
        pytest.skip(f"coco128 is not at {folder}")
    with pytest.warns(UserWarning, match="without a label file"):
        targets = yolo(str(folder), size=320).load(range(128)).targets
    with np.load(Path(__file__).with_name("coco128_reports.npz")) as found:
        return StoredScenes(
            found["boxes"],
            found["scores"],
            found["labels"].astype(np.int16) + 1,
            targets["boxes"].numpy(),
            targets["labels"].numpy().astype(np.int16) + 1,
            targets["crowd"].numpy(),
        )


@ORACLES
def test_a_trained_detector_has_the_references_map_on_its_scenes(oracle: Oracle, on_its_scenes: StoredScenes) -> None:
    assert AveragePrecision(on_its_scenes).value > 0.6
    same(AveragePrecision(on_its_scenes), oracle(on_its_scenes))


@ORACLES
def test_a_trained_detector_has_the_references_map_on_coco128(oracle: Oracle, on_coco128: StoredScenes) -> None:
    found = AveragePrecision(on_coco128)
    assert 0.3 < found.value < 0.4
    assert 0.45 < found.value_at_50 < 0.6
    same(found, oracle(on_coco128))


@ORACLES
@pytest.mark.parametrize("images", [slice(0, 40), slice(40, 41), slice(90, 128)])
def test_so_it_has_on_some_of_its_images(oracle: Oracle, on_coco128: StoredScenes, images: slice) -> None:
    few = StoredScenes(*(getattr(on_coco128, field.name)[images] for field in fields(StoredScenes)))
    same(AveragePrecision(few), oracle(few))
