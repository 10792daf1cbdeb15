"""Folders of images and masks, and Pascal VOC's: what is read, and what is refused by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rbl_detection_data.image_masks import image_masks, voc_segmentation
from rbl_detection_data.mask_images import MaskImages
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.class_masks import IGNORED
from robustbench_lab.testing.component_contracts import check_dataset

CLASSES = 5
WIDTH, HEIGHT = 12, 8


def write(folder: Path, names: str = "ab") -> Path:
    """Images of 12 x 8 pixels with masks of classes 0 to 4 and some pixels that do not count."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name in names:
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        mask = rng.integers(0, CLASSES, (HEIGHT, WIDTH), dtype=np.uint8)
        mask[0, :3] = IGNORED
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def opened(folder: Path, **more: object) -> MaskImages:
    return image_masks(str(folder), CLASSES, size=[HEIGHT, WIDTH], **more)  # type: ignore[arg-type]


def test_at_its_own_size_an_image_and_its_mask_come_back_as_they_are(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "d", "abc"))
    assert sorted(data.sample_ids) == ["a.png", "b.png", "c.png"]
    samples = data.load([2, 0])
    assert (samples.inputs.shape, samples.targets.dtype) == ((2, 3, HEIGHT, WIDTH), torch.uint8)
    for place, name in enumerate((data.sample_ids[2], data.sample_ids[0])):
        expected = pixels(tmp_path / "d" / "images" / name)
        assert np.array_equal((samples.inputs[place] * 255).round().permute(1, 2, 0), expected)
        assert np.array_equal(samples.targets[place], pixels(tmp_path / "d" / "masks" / name))
    assert samples.attackable is None
    assert check_dataset(data, opened(tmp_path / "d")) == []


def test_on_a_larger_canvas_the_mask_is_enlarged_without_new_classes_and_padding_does_not_count(tmp_path: Path) -> None:
    data = image_masks(str(write(tmp_path / "d", "a")), CLASSES, size=24)
    samples = data.load([0])
    expected = pixels(tmp_path / "d" / "masks" / "a.png").repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(samples.targets[0, :16], expected)
    assert bool((samples.targets[0, 16:] == IGNORED).all())
    assert samples.attackable is not None
    assert samples.attackable[0, 0].any(1).tolist() == [True] * 16 + [False] * 8


def test_palettes_and_16_bits_count_by_their_numbers(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", "ab")
    before = {name: opened(folder).load([index]).targets for index, name in enumerate(opened(folder).sample_ids)}
    for name in "ab":
        file = folder / "masks" / f"{name}.png"
        mask = Image.fromarray(pixels(file))
        if name == "a":
            mask.putpalette(bytes(range(256)) * 3)
            mask.save(file)
        else:
            Image.fromarray(pixels(file).astype(np.uint16)).save(file)
    data = opened(folder)
    for index, name in enumerate(data.sample_ids):
        assert torch.equal(data.load([index]).targets, before[name])


def test_images_that_are_not_rgb_are_converted_and_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "d")
    grey = np.arange(WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    Image.fromarray(grey).save(folder / "images" / "a.png")
    with pytest.warns(UserWarning, match=r"1 of 2 images .* RGB: 1 x grey to three equal channels \('a.png'\)"):
        data = opened(folder)
    inputs = data.load([list(data.sample_ids).index("a.png")]).inputs[0]
    assert np.array_equal((inputs * 255).round(), np.stack([grey] * 3))


def test_every_file_and_the_canvas_enter_the_revision(tmp_path: Path) -> None:
    folder = write(tmp_path / "d")
    before = opened(folder).revision
    assert opened(folder).revision == before
    assert image_masks(str(folder), CLASSES, size=16).revision != before
    mask = pixels(folder / "masks" / "a.png").copy()
    mask[5, 5] = (mask[5, 5] + 1) % CLASSES
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    assert opened(folder).revision != before


def _resize(folder: Path) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(folder / "masks" / "a.png")


def _colour(folder: Path) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(folder / "masks" / "a.png")


def _unknown_class(folder: Path) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 7, np.uint8)).save(folder / "masks" / "a.png")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_resize, "1 x mask of another size than its image ('a.png': 4x3, its image 12x8 upright)"),
        (_colour, "1 x mask in colours, not in class numbers ('a.png': mode RGB)"),
        (_unknown_class, "1 x mask with a class that is not declared ('a.png': 7 of 5)"),
        (lambda folder: (folder / "masks" / "a.png").unlink(), "1 x image without a mask ('a.png'"),
        (
            lambda folder: (folder / "images" / "a.png").write_bytes(b"no image"),
            "1 x image that does not load ('a.png'",
        ),
        (lambda folder: (folder / "masks" / "a.png").write_bytes(b"no mask"), "1 x mask that does not load ('a.png'"),
    ],
)
def test_what_is_wrong_is_named_counted_and_refused_or_left_out(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    folder = write(tmp_path / "d")
    spoil(folder)
    with pytest.raises(UsageError) as refusal:
        opened(folder)
    assert said in str(refusal.value)
    assert "add on_error='skip' to leave out 1 of 2 images" in str(refusal.value)
    with pytest.warns(UserWarning, match="1 of 2 images are left out whole"):
        data = opened(folder, on_error="skip")
    assert list(data.sample_ids) == ["b.png"]
    assert len(data.problems) == 1


def test_masks_without_an_image_missing_folders_and_too_few_classes_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "d")
    (folder / "images" / "a.png").unlink()
    with pytest.raises(UsageError, match=r"1 x mask without an image \('a.png'\)"):
        opened(folder)
    with pytest.raises(UsageError, match="there is no folder"):
        image_masks(str(folder / "images"), CLASSES)
    with pytest.raises(UsageError, match="classes must be 2 to 255, not 1"):
        image_masks(str(folder), ["one"])


def test_pascal_voc_is_read_by_its_list(tmp_path: Path) -> None:
    release = tmp_path / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (release / part).mkdir(parents=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(release / "JPEGImages" / "one.jpg")
    mask = Image.fromarray(np.full((HEIGHT, WIDTH), 20, np.uint8))
    mask.putpalette(bytes(range(256)) * 3)
    mask.save(release / "SegmentationClass" / "one.png")
    (release / "ImageSets" / "Segmentation" / "val.txt").write_text("one\n")
    data = voc_segmentation(str(tmp_path), size=[HEIGHT, WIDTH])
    assert (data.classes, data.class_names[20], list(data.sample_ids)) == (21, "tvmonitor", ["one.jpg"])
    assert bool((data.load([0]).targets == 20).all())
    with pytest.raises(UsageError, match="add download=True"):
        voc_segmentation(str(tmp_path / "nothing"))
