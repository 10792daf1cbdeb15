"""Detection datasets from files: `coco`, `yolo`, `voc` and torchvision's names for two of them."""

import json
import math
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rbl_detection_data.annotations import Kind
from rbl_detection_data.coco import coco
from rbl_detection_data.detection_images import DetectionImages
from rbl_detection_data.rgb_images import ORIENTATION
from rbl_detection_data.torchvision_names import coco_detection, voc_detection
from rbl_detection_data.voc import voc
from rbl_detection_data.yolo import yolo
from robustbench_lab.errors import UsageError
from robustbench_lab.testing.component_contracts import check_dataset

WIDTH, HEIGHT = 20, 10
NAMES = ["cat", "dog"]


def write_image(file: Path, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0, **save: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, **save)
    return file


def annotation(number: int, image: int, box: list[float], category: int = 3, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "bbox": box, "category_id": category, "iscrowd": 0, **more}


def write_coco(folder: Path, annotations: list[dict[str, Any]], images: int = 2, **more: Any) -> str:
    """`images` images a.png, b.png, ... and instances.json; categories 7 dog and 3 cat."""
    folder.mkdir(exist_ok=True)
    entries = []
    for number in range(images):
        name = f"{chr(ord('a') + number)}.png"
        write_image(folder / name, seed=number)
        entries.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    content = {"images": entries, "annotations": annotations, "categories": categories, **more}
    (folder / "instances.json").write_text(json.dumps(content))
    return str(folder / "instances.json")


def write_yolo(folder: Path, labels: dict[str, str | None], names: object = None) -> str:
    """images/<name>.png with labels/<name>.txt (None: no file) and dataset.yaml."""
    for seed, (name, text) in enumerate(labels.items()):
        write_image(folder / "images" / f"{name}.png", seed=seed)
        if text is not None:
            (folder / "labels").mkdir(exist_ok=True)
            (folder / "labels" / f"{name}.txt").write_text(text)
    content = {"path": ".", "val": "images", "names": NAMES if names is None else names}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "dataset.yaml")


def voc_object(name: str, box: tuple[float, float, float, float], difficult: int = 0) -> str:
    edges = "".join(f"<{edge}>{at}</{edge}>" for edge, at in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{edges}</bndbox></object>"


def write_voc(folder: Path, objects: dict[str, str], prolog: str = "") -> str:
    """Annotations/<name>.xml and JPEGImages/<name>.png."""
    (folder / "Annotations").mkdir(parents=True)
    for seed, (name, text) in enumerate(objects.items()):
        write_image(folder / "JPEGImages" / f"{name}.png", seed=seed)
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        whole = f"{prolog}<annotation><filename>{name}.png</filename>{size}{text}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(whole)
    return str(folder)


def objects_of(dataset: DetectionImages, sample_id: str) -> list[tuple[list[float], int, bool]]:
    """Boxes on the canvas, labels and crowds of one sample, without the padding."""
    targets = dataset.load([list(dataset.sample_ids).index(sample_id)]).targets
    there = targets["labels"][0] >= 0
    columns = (targets["boxes"][0][there].tolist(), targets["labels"][0][there].tolist())
    return list(zip(*columns, targets["crowd"][0][there].tolist(), strict=True))


def refusal(make: Callable[..., DetectionImages], path: str, **more: Any) -> str:
    with pytest.raises(UsageError) as caught:
        make(path, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def skipping(make: Callable[..., DetectionImages], path: str, **more: Any) -> tuple[DetectionImages, str]:
    """The dataset without what is wrong, and the one line that says so."""
    dataset, told = _told(lambda: make(path, on_error="skip", **more))
    (said,) = [one for one in told if "left out whole" in one]
    assert "\n" not in said
    return dataset, said


def _told(make: Callable[[], DetectionImages]) -> tuple[DetectionImages, list[str]]:
    """The dataset, and the warnings given as it was opened."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = make()
    return dataset, [str(one.message) for one in caught]


# ---------------------------------------------------------------- what is read


def test_coco_boxes_labels_and_crowds_are_read(tmp_path: Path) -> None:
    path = write_coco(
        tmp_path,
        [
            annotation(1, 0, [2, 1, 8, 4]),
            annotation(2, 0, [0, 0, 20, 10], 7),
            annotation(3, 1, [1, 1, 2, 2], 7, iscrowd=1),
        ],
    )
    dataset = coco(path, size=40)
    assert dataset.class_names == ("cat", "dog")  # in the order of their ids
    assert dataset.classes == 2
    assert sorted(dataset.sample_ids) == ["a.png", "b.png"]
    assert objects_of(dataset, "a.png") == [([4, 2, 20, 10], 0, False), ([0, 0, 40, 20], 1, False)]
    assert objects_of(dataset, "b.png") == [([2, 2, 6, 6], 1, True)]


def test_images_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 0, [2, 1, 8, 4])], images=1)
    (tmp_path / "val").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "val" / "a.png")
    assert list(coco(path, images=str(tmp_path / "val")).sample_ids) == ["a.png"]
    assert list(coco_detection(str(tmp_path / "val"), path).sample_ids) == ["a.png"]


def test_yolo_boxes_and_labels_are_read(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, {"a": "1 0.5 0.5 0.5 0.4\n\n0 0.1 0.2 0.2 0.4\n", "b": ""}, {0: "cat", 1: "dog"})
    dataset = yolo(path, size=40)
    assert dataset.class_names == ("cat", "dog")
    found = objects_of(dataset, "images/a.png")
    assert [label for _, label, _ in found] == [1, 0]
    np.testing.assert_allclose([box for box, _, _ in found], [[10, 6, 30, 14], [0, 0, 8, 8]], atol=1e-5)
    assert objects_of(dataset, "images/b.png") == []
    assert yolo(str(tmp_path)).revision == yolo(path).revision


def test_yolo_splits_can_be_folders_or_lists_of_files(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.4", "b": "", "c": ""})
    (tmp_path / "some.txt").write_text("./images/a.png\nimages/c.png\n")
    (tmp_path / "dataset.yaml").write_text("val: [some.txt]\ntrain: images\nnames: [cat]\n")
    assert sorted(yolo(str(tmp_path)).sample_ids) == ["images/a.png", "images/c.png"]
    assert len(yolo(str(tmp_path), split="train").sample_ids) == 3
    assert "Did you mean 'train'?" in refusal(yolo, str(tmp_path), split="trian")


def test_images_without_a_label_file_are_told(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.4", "b": None})
    with pytest.warns(
        UserWarning, match=r"1 of 2 images have no objects \('images/b.png'\), 1 of them without a label file"
    ):
        assert objects_of(yolo(path), "images/b.png") == []
    (tmp_path / "labels" / "a.txt").unlink()
    assert "no label files" in refusal(yolo, path)


def test_voc_boxes_count_pixels_from_1_and_difficult_objects_are_crowds(tmp_path: Path) -> None:
    path = write_voc(tmp_path, {"a": voc_object("cat", (1, 1, 20, 10)) + voc_object("dog", (3, 2, 4, 4), 1), "b": ""})
    dataset = voc(path, classes=NAMES, size=40)
    assert objects_of(dataset, "a.png") == [([0, 0, 40, 20], 0, False), ([4, 2, 8, 8], 1, True)]
    assert objects_of(dataset, "b.png") == []
    assert voc(path).class_names.index("dog") == objects_of(voc(path), "a.png")[1][1]  # VOC's own 20 classes


def test_voc_splits_are_lists_of_names(tmp_path: Path) -> None:
    path = write_voc(tmp_path, {name: voc_object("cat", (1, 1, 4, 4)) for name in "abc"})
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("a\nc 1\n")
    assert sorted(voc(path, split="val").sample_ids) == ["a.png", "c.png"]
    assert "Did you mean 'val'?" in refusal(voc, path, split="vel")
    (lists / "val.txt").write_text("a\nz\n")
    assert "'z.xml': there is no such file" in refusal(voc, path, split="val")


def test_torchvisions_voc_is_the_same_data(tmp_path: Path) -> None:
    release = tmp_path / "VOCdevkit" / "VOC2012"
    write_voc(release, {"a": voc_object("cat", (1, 1, 4, 4))})
    lists = release / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("a\n")
    assert voc_detection(root=str(tmp_path)).revision == voc(str(release), split="val").revision
    assert "add download=True" in refusal(lambda root: voc_detection(root=root, year="2007"), str(tmp_path))


def test_the_three_formats_of_the_same_data_give_the_same_samples(tmp_path: Path) -> None:
    one = coco(write_coco(tmp_path / "coco", [annotation(1, 0, [2, 1, 8, 4], 7)], images=1), size=64)
    two = yolo(write_yolo(tmp_path / "yolo", {"a": "1 0.3 0.3 0.4 0.4"}), size=64)
    three = voc(write_voc(tmp_path / "voc", {"a": voc_object("dog", (3, 2, 10, 5))}), classes=NAMES, size=64)
    samples = [dataset.load([0]) for dataset in (one, two, three)]
    for other in samples[1:]:
        assert torch.equal(other.inputs, samples[0].inputs)
        torch.testing.assert_close(other.targets, samples[0].targets)


def has_area(box: tuple[int, int, int, int]) -> bool:
    return box[0] < box[2] and box[1] < box[3]


@settings(max_examples=30, deadline=None)
@given(data=st.data(), size=st.tuples(st.integers(4, 50), st.integers(4, 50)), canvas=st.integers(8, 80))
def test_boxes_come_back_from_the_canvas_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: tuple[int, int], canvas: int
) -> None:
    width, height = size
    shares = data.draw(st.lists(st.tuples(*[st.integers(0, 1000)] * 4).filter(has_area), max_size=5, unique=True))
    written = [np.array(one) / 1000 * np.tile(size, 2) for one in shares]
    folder = tmp_path_factory.mktemp("coco")
    write_image(folder / "a.png", size)
    boxes = [[*one[:2].tolist(), *(one[2:] - one[:2]).tolist()] for one in written]
    content = {
        "images": [{"id": 5, "file_name": "a.png"}],
        "annotations": [annotation(number, 5, box) for number, box in enumerate(boxes)],
        "categories": [{"id": 3, "name": "cat"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    found = objects_of(coco(str(folder / "instances.json"), size=canvas), "a.png")
    scale = min(canvas / width, canvas / height)
    # The side that does not fill the canvas is rounded to a whole pixel.
    wanted = np.array(written).reshape(-1, 4) * scale
    np.testing.assert_allclose(np.array([box for box, _, _ in found]).reshape(-1, 4), wanted, atol=0.51)


# ---------------------------------------------------------------- samples


def test_padding_is_not_attackable(tmp_path: Path) -> None:
    samples = coco(write_coco(tmp_path, []), size=40).load([0, 1])
    assert samples.inputs.shape == (2, 3, 40, 40)
    assert samples.inputs.dtype == torch.float32
    assert samples.attackable is not None
    reach = samples.attackable.expand_as(samples.inputs)
    assert reach[:, :, :20].all()
    assert not reach[:, :, 20:].any()
    assert torch.equal(samples.inputs[~reach], torch.full(((~reach).sum(),), 114 / 255))
    assert coco(str(tmp_path / "instances.json"), size=[20, 40]).load([0]).attackable is None


def test_pixels_are_those_of_the_file_where_the_canvas_has_its_size(tmp_path: Path) -> None:
    dataset = coco(write_coco(tmp_path, []), size=[HEIGHT, WIDTH])
    with Image.open(tmp_path / dataset.sample_ids[1]) as image:
        wanted = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    assert torch.equal(dataset.load([1]).inputs[0], wanted)


def test_targets_are_padded_alike_whatever_is_loaded(tmp_path: Path) -> None:
    dataset = coco(write_coco(tmp_path, [annotation(n, 1, [0, 0, n, 5]) for n in (1, 2, 3)]))
    for indices in ([0], [1], [0, 1]):
        targets = dataset.load(indices).targets
        assert targets["boxes"].shape == (len(indices), 3, 4)
        assert targets["labels"].dtype == torch.int64
        padding = targets["labels"] < 0
        assert not targets["boxes"][padding].any()
        assert not targets["crowd"][padding].any()


def test_a_dataset_without_any_object_has_samples_all_the_same(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 of 2 images have no objects .*; there is no mAP"):
        dataset = coco(write_coco(tmp_path, []))
    assert (dataset.load([0, 1]).targets["labels"] == -1).all()


@pytest.mark.parametrize("make", ["coco", "yolo", "voc"])
def test_the_contract_of_datasets_is_kept(tmp_path: Path, make: str) -> None:
    made = {
        "coco": lambda: coco(write_coco(tmp_path, [annotation(1, 0, [2, 1, 8, 4])], images=5), size=32),
        "yolo": lambda: yolo(write_yolo(tmp_path, dict.fromkeys("abcde", "0 0.5 0.5 0.5 0.4")), size=32),
        "voc": lambda: voc(write_voc(tmp_path, dict.fromkeys("abcde", voc_object("cat", (1, 1, 9, 9)))), size=32),
    }
    assert check_dataset(made[make]()) == []


def test_the_revision_follows_what_evaluation_depends_on(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 0, [2, 1, 8, 4])])
    first = coco(path).revision
    assert coco(path).revision == first
    elsewhere = write_coco(tmp_path / "elsewhere", [annotation(9, 0, [2, 1, 8, 4], area=3)], info={"year": 2})
    assert coco(elsewhere).revision == first
    revisions = [
        first,
        coco(path, size=320).revision,
        coco(write_coco(tmp_path, [annotation(1, 0, [2, 1, 8, 5])])).revision,
        coco(write_coco(tmp_path, [annotation(1, 0, [2, 1, 8, 4], 7)])).revision,
        coco(write_coco(tmp_path, [annotation(1, 0, [2, 1, 8, 4], iscrowd=1)])).revision,
        coco(write_coco(tmp_path, [annotation(1, 1, [2, 1, 8, 4])])).revision,
    ]
    write_image(tmp_path / "b.png", seed=99)
    revisions.append(coco(path).revision)
    assert len(set(revisions)) == len(revisions)


def test_images_are_not_kept_in_memory(tmp_path: Path) -> None:
    for number in range(30):
        write_image(tmp_path / f"{number}.png", (200, 200), seed=number)
    entries = [{"id": number, "file_name": f"{number}.png"} for number in range(30)]
    content = {"images": entries, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    dataset = coco(str(tmp_path / "instances.json"))
    tracemalloc.start()
    for index in range(30):
        dataset.load([index])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 200 * 200 * 3  # less than the pixels of one


# ---------------------------------------------------------------- kinds of image files


def _save(file: Path, array: np.ndarray, **more: Any) -> None:
    Image.fromarray(array).save(file, **more)


GREY = np.arange(WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("grey", "grey to three equal channels"),
        ("16 bits", "16 bits of grey to three channels of 8"),
        ("16 bits tiff", "16 bits of grey to three channels of 8"),
        ("alpha", "alpha dropped"),
        ("grey with alpha", "grey to three equal channels, alpha dropped"),
        ("palette", "palette to RGB"),
        ("two colours", "grey to three equal channels"),
    ],
)
def test_other_kinds_of_images_become_rgb_of_8_bits_which_is_told(tmp_path: Path, form: str, told: str) -> None:
    path = write_coco(tmp_path, [], images=1)
    file, wanted = tmp_path / "a.png", np.stack([GREY] * 3)
    alpha = np.full_like(GREY, 7)
    match form:
        case "grey":
            _save(file, GREY)
        case "16 bits":
            _save(file, GREY.astype(np.uint16) * 257)
        case "16 bits tiff":
            _save(file, GREY.astype(np.uint16) * 257 + 100, format="TIFF")
        case "alpha":
            _save(file, np.dstack([GREY, GREY, GREY, alpha]))
        case "grey with alpha":
            _save(file, np.dstack([GREY, alpha]))
        case "palette":
            Image.fromarray(GREY).convert("P").save(file)
        case "two colours":
            _save(file, GREY > 99)
            wanted = np.stack([(GREY > 99) * 255] * 3)
    dataset, said = _told(lambda: coco(path, size=[HEIGHT, WIDTH]))
    assert torch.equal(dataset.load([0]).inputs[0], torch.from_numpy(wanted.astype(np.float32) / 255))
    assert said[0] == f"coco '{path}': 1 of 1 images are converted to RGB: 1 x {told} ('a.png')"


def test_conversions_and_images_without_objects_are_counted_by_kind(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [], images=2)
    _save(tmp_path / "a.png", GREY)
    _save(tmp_path / "b.png", np.dstack([GREY] * 4))
    _, said = _told(lambda: coco(path))
    kinds = "1 x alpha dropped ('b.png'); 1 x grey to three equal channels ('a.png')"
    assert said == [
        f"coco '{path}': 2 of 2 images are converted to RGB: {kinds}",
        f"coco '{path}': 2 of 2 images have no objects ('b.png', 'a.png'); there is no mAP",
    ]


def test_images_without_objects_are_counted(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 0, [1, 1, 9, 9])])
    _, said = _told(lambda: coco(path))
    assert said == [f"coco '{path}': 1 of 2 images have no objects ('b.png')"]


def test_a_picture_held_sideways_is_turned_upright(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 0, [0, 0, HEIGHT, WIDTH])], images=1)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees clockwise
    _save(tmp_path / "a.png", GREY, exif=exif)
    said = refusal(coco, path)
    assert f"'a.png': {HEIGHT}x{WIDTH} upright, {WIDTH}x{HEIGHT} annotated" in said
    content = json.loads(Path(path).read_text())
    content["images"][0] |= {"width": HEIGHT, "height": WIDTH}
    Path(path).write_text(json.dumps(content))
    loaded = coco(path, size=[WIDTH, HEIGHT]).load([0]).inputs[0, 0]
    assert torch.equal(loaded, torch.from_numpy(np.rot90(GREY, -1).astype(np.float32) / 255))


# ---------------------------------------------------------------- what is wrong

WRONG = {
    "outside": (annotation(8, 0, [15, 1, 8, 4]), Kind.OUTSIDE, "annotation 8 of 'a.png': [15, 1, 23, 5]"),
    "left of the image": (annotation(8, 0, [-3, 1, 8, 4]), Kind.OUTSIDE, "[-3, 1, 5, 5]"),
    "wholly in the margin": (annotation(8, 0, [20.2, 1, 0.5, 4]), Kind.OUTSIDE, "[20.2"),
    "no width": (annotation(8, 0, [5, 1, 0, 4]), Kind.EMPTY, "[5, 1, 5, 5]"),
    "negative height": (annotation(8, 0, [5, 5, 3, -2]), Kind.EMPTY, "[5, 5, 8, 3]"),
    "nan": (annotation(8, 0, [math.nan, 1, 8, 4]), Kind.NUMBER, "[nan, 1, nan, 5]"),
    "infinite": (annotation(8, 0, [0, 0, math.inf, 4]), Kind.NUMBER, "inf"),
    "a huge whole number": (annotation(8, 0, [0, 0, 10**400, 4]), Kind.NUMBER, "inf"),
    "undeclared category": (annotation(8, 0, [1, 1, 8, 4], 4), Kind.CLASS, "annotation 8 of 'a.png': category_id 4"),
    "category without number": (annotation(8, 0, [1, 1, 8, 4], "cat"), Kind.CLASS, "category_id 'cat'"),
    "three numbers": (annotation(8, 0, [1, 1, 8]), Kind.FORM, "bbox [1, 1, 8]"),
    "text": (annotation(8, 0, ["1", 1, 8, 4]), Kind.FORM, "bbox"),
    "no box": ({"id": 8, "image_id": 0, "category_id": 3}, Kind.FORM, "bbox None"),
    "crowd": (annotation(8, 0, [1, 1, 8, 4], iscrowd="yes"), Kind.FORM, "annotation 8"),
    "id given twice": (annotation(1, 0, [1, 1, 8, 4]), Kind.DUPLICATE, "annotation 1 of 'a.png'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_image_with_something_wrong_is_named_and_refused_or_left_out_whole(tmp_path: Path, case: str) -> None:
    wrong, kind, named = WRONG[case]
    path = write_coco(tmp_path, [annotation(1, 0, [1, 1, 3, 3]), wrong, annotation(2, 1, [1, 1, 3, 3])])
    said = refusal(coco, path)
    assert f" x {kind} (" in said
    assert named in said
    assert "add on_error='skip' to leave out 1 of 2 images" in said

    dataset, told = skipping(coco, path)
    assert list(dataset.sample_ids) == ["b.png"]
    assert "1 of 2 images are left out whole" in told
    assert named in told
    assert {problem.kind for problem in dataset.problems} == {kind}


def test_every_problem_is_counted_and_kept(tmp_path: Path) -> None:
    many = [annotation(n, 0, [30 + n, 1, 8, 4]) for n in range(1, 6)]
    path = write_coco(tmp_path, [*many, annotation(9, 0, [1, 1, 0, 4]), annotation(10, 1, [1, 1, 4, 4])])
    dataset, told = skipping(coco, path)
    assert "5 x box outside of its image" in told
    assert "and 2 more" in told
    assert "1 x box without area" in told
    assert len(dataset.problems) == 6


def test_annotations_of_no_image_are_named(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 0, [1, 1, 3, 3]), annotation(4, 77, [1, 1, 3, 3])])
    assert f"1 x {Kind.NO_IMAGE} (annotation 4: image_id 77)" in refusal(coco, path)
    dataset, told = skipping(coco, path)
    assert "0 of 2 images are left out" in told
    assert len(dataset.sample_ids) == 2


def test_a_box_is_clipped_by_a_pixel_and_no_more(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 0, [-1, -0.5, 22, 11.5])])
    assert objects_of(coco(path, size=[HEIGHT, WIDTH]), "a.png") == [([0, 0, 20, 10], 0, False)]
    assert Kind.OUTSIDE in refusal(coco, write_coco(tmp_path, [annotation(1, 0, [-1, -0.5, 22.1, 11.5])]))


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "float"])
def test_an_image_that_does_not_load_is_named(tmp_path: Path, damage: str) -> None:
    path = write_coco(tmp_path, [])
    file = tmp_path / "a.png"
    write_image(file, (60, 60), format="JPEG")
    contents = {"empty": b"", "text": b"no image", "cut": file.read_bytes()[:1500]}
    if damage == "missing":
        file.unlink()
    elif damage == "float":
        _save(file, np.zeros((HEIGHT, WIDTH), dtype=np.float32), format="TIFF")
    else:
        file.write_bytes(contents[damage])
    said = refusal(coco, path)
    assert f"1 x {Kind.UNREADABLE} ('a.png': " in said
    dataset, told = skipping(coco, path)
    assert list(dataset.sample_ids) == ["b.png"]
    assert "1 of 2 images" in told


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 0, [30, 1, 3, 3])], images=1)
    with pytest.warns(UserWarning, match="1 of 1"), pytest.raises(UsageError, match="no image is left"):
        coco(path, on_error="skip")


def test_a_file_that_changes_after_it_was_opened_is_named(tmp_path: Path) -> None:
    dataset = coco(write_coco(tmp_path, [], images=1))
    write_image(tmp_path / "a.png", (7, 7))
    with pytest.raises(UsageError, match="has changed its size"):
        dataset.load([0])
    (tmp_path / "a.png").unlink()
    with pytest.raises(UsageError, match="there is no such file"):
        dataset.load([0])


IMAGE = {"id": 1, "file_name": "a.png"}
CATEGORY = {"id": 1, "name": "cat"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ([{"image_id": 1, "bbox": [], "score": 1}], "a list, as files of detections are"),
        ({"images": [IMAGE], "annotations": []}, "'categories' must be a list"),
        ({"images": [1], "annotations": [], "categories": [CATEGORY]}, "'images' must be a list of objects"),
        ({"images": [], "annotations": [], "categories": [CATEGORY]}, "'images' is empty"),
        ({"images": [{"id": 1}], "annotations": [], "categories": [CATEGORY]}, "an image needs"),
        ({"images": [IMAGE, IMAGE], "annotations": [], "categories": [CATEGORY]}, "two images have the id 1"),
        ({"images": [IMAGE], "annotations": [], "categories": [CATEGORY, CATEGORY]}, "two categories have the id 1"),
        ({"images": [IMAGE], "annotations": [], "categories": [{"id": 1}]}, "a category needs"),
        (
            {"images": [IMAGE | {"file_name": "../../etc/passwd"}], "annotations": [], "categories": [CATEGORY]},
            "not below the images' folder",
        ),
    ],
)
def test_a_json_file_of_another_form_is_refused_in_one_line(tmp_path: Path, content: object, said: str) -> None:
    file = tmp_path / "instances.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    for on_error in ("refuse", "skip"):
        assert said in refusal(coco, str(file), on_error=on_error)


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("0 0.5 0.5 0.5", Kind.FORM, "line 2 of 'a.txt': 4 columns"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5", Kind.FORM, "7 columns"),  # a polygon
        ("cat 0.5 0.5 0.5 0.4", Kind.FORM, "line 2"),
        ("2 0.5 0.5 0.5 0.4", Kind.CLASS, "line 2 of 'a.txt': 2"),
        ("-1 0.5 0.5 0.5 0.4", Kind.CLASS, "-1"),
        ("0.5 0.5 0.5 0.5 0.4", Kind.CLASS, "0.5"),
        ("nan 0.5 0.5 0.5 0.4", Kind.CLASS, "nan"),
        ("0 nan 0.5 0.5 0.4", Kind.NUMBER, "line 2"),
        ("0 0.5 0.5 0 0.4", Kind.EMPTY, "line 2"),
        ("0 0.9 0.5 0.5 0.4", Kind.OUTSIDE, "line 2"),
        ("0 320 200 50 40", Kind.OUTSIDE, "line 2"),  # pixels
        ("1 0.5 0.5 0.5 0.4", Kind.DUPLICATE, "line 1"),
    ],
)
def test_a_wrong_line_of_a_label_file_is_named(tmp_path: Path, text: str, kind: Kind, named: str) -> None:
    path = write_yolo(tmp_path, {"a": f"1 0.5 0.5 0.5 0.4\n{text}\n", "b": "0 0.5 0.5 0.5 0.4"})
    said = refusal(yolo, path)
    assert f" x {kind} (" in said
    assert named in said
    assert list(skipping(yolo, path)[0].sample_ids) == ["images/b.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: [cat]", "there is no split 'val'"),
        ("val: images\n", "names: must list the classes"),
        ("val: images\nnames: {1: cat, 2: dog}", "names: must list the classes"),
        ("val: images\nnames: [cat]\nnc: 2", "nc: is 2"),
        ("val: elsewhere\nnames: [cat]", "set path:"),
        ("- a list", "names: and val: are needed"),
        ("val: [", "not a YAML file"),
        ("val: !!python/object/apply:os.system ['true']", "not a YAML file"),
    ],
)
def test_a_yaml_file_of_another_form_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.4"})
    Path(path).write_text(text)
    assert said in refusal(yolo, path)


def test_a_folder_with_no_or_several_yaml_files_is_refused(tmp_path: Path) -> None:
    assert "must hold one YAML file" in refusal(yolo, str(tmp_path))
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text("")
    assert "a.yaml, b.yml" in refusal(yolo, str(tmp_path))


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        (voc_object("helmet", (1, 1, 4, 4)), Kind.CLASS, "object 1 of 'a.xml': 'helmet'; name all with classes=[...]"),
        (voc_object("cat", (1, 1, 40, 4)), Kind.OUTSIDE, "object 1"),
        (voc_object("cat", (9, 1, 4, 4)), Kind.EMPTY, "object 1"),
        ("<object><name>cat</name></object>", Kind.FORM, "bndbox needs"),
        ("<object><name>cat</name><bndbox><xmin>x</xmin></bndbox></object>", Kind.FORM, "bndbox needs"),
        (voc_object("cat", (1, 1, 4, 4)) * 2, Kind.DUPLICATE, "object 2 of 'a.xml'"),
        ("<object>", Kind.FORM, "'a.xml': not an XML file"),
    ],
)
def test_a_wrong_xml_file_is_named(tmp_path: Path, text: str, kind: Kind, named: str) -> None:
    path = write_voc(tmp_path, {"a": text, "b": voc_object("cat", (1, 1, 4, 4))})
    said = refusal(voc, path)
    assert f"1 x {kind} (" in said
    assert named in said
    assert list(skipping(voc, path)[0].sample_ids) == ["b.png"]


@pytest.mark.parametrize(
    "prolog",
    [
        '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd">',
    ],
)
def test_xml_files_that_declare_entities_are_refused(tmp_path: Path, prolog: str) -> None:
    path = write_voc(tmp_path, {"a": ""}, prolog)
    assert "which are refused" in refusal(voc, path)


def test_images_that_the_xml_file_names_are_not_looked_for_elsewhere(tmp_path: Path) -> None:
    path = write_voc(tmp_path, {"a": ""})
    file = tmp_path / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("a.png", "/etc/passwd"))
    assert list(voc(path).sample_ids) == ["a.png"]  # by the XML file's own name


# ---------------------------------------------------------------- real data


def test_coco128_is_read(shared_folder: Path) -> None:
    folder = shared_folder / "data" / "coco128"
    if not folder.is_dir():
        pytest.skip(f"coco128 is not at {folder}")
    with pytest.warns(UserWarning, match="2 of 128 images have no objects .*, 2 of them without a label file"):
        dataset = yolo(str(folder), size=320)
    assert len(dataset.sample_ids) == 128
    assert dataset.classes == 80
    assert len(dataset.class_names) == 80
    assert sum(len(image.labels) for image in dataset.images) == 929
    assert dataset.problems == ()
    samples = dataset.load(range(4))
    assert samples.inputs.shape == (4, 3, 320, 320)
    boxes = samples.targets["boxes"]
    assert (boxes >= 0).all()
    assert (boxes <= 320).all()
