"""Datasets from a user's own files: `npz` and `image-folder`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from rbl_files.image_folder import image_folder
from rbl_files.npz_dataset import npz_dataset
from robustbench_lab.errors import UsageError


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_npz(folder: Path, images: np.ndarray, labels: np.ndarray | None = None) -> str:
    file = folder / "data.npz"
    np.savez(file, images=images, labels=np.arange(len(images)) % 10 if labels is None else labels)
    return str(file)


def one_line(caught: pytest.ExceptionInfo[UsageError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- npz


@settings(max_examples=25, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 7)] * 3), channels=st.sampled_from([1, 3, 4]), seed=st.integers(0, 99))
def test_every_layout_of_the_same_images_is_the_same_dataset(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], channels: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("npz")
    last = pixels(*shape, channels, seed=seed)
    wanted = torch.tensor(last.transpose(0, 3, 1, 2).astype(np.float32) / 255)

    by_last = npz_dataset(write_npz(folder, last), layout="NHWC")
    by_second = npz_dataset(write_npz(folder, last.transpose(0, 3, 1, 2)), layout="NCHW")

    everything = range(shape[0])
    torch.testing.assert_close(by_last.load(everything).inputs, wanted, rtol=0, atol=6e-8)
    assert torch.equal(by_last.load(everything).inputs, by_second.load(everything).inputs)
    assert by_last.revision == by_second.revision


@pytest.mark.parametrize(
    ("shape", "loaded"),
    [
        ((5, 8, 6), (5, 1, 8, 6)),
        ((5, 8, 6, 3), (5, 3, 8, 6)),
        ((5, 3, 8, 6), (5, 3, 8, 6)),
        ((5, 8, 6, 1), (5, 1, 8, 6)),
    ],
)
def test_the_layout_is_told_from_the_shape(tmp_path: Path, shape: tuple[int, ...], loaded: tuple[int, ...]) -> None:
    samples = npz_dataset(write_npz(tmp_path, pixels(*shape))).load(range(5))
    assert tuple(samples.inputs.shape) == loaded
    assert samples.inputs.dtype == torch.float32


@pytest.mark.parametrize("shape", [(5, 3, 8, 3), (5, 8, 6, 2)])
def test_a_layout_that_cannot_be_told_is_asked_for(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="add layout='NHWC' or layout='NCHW'") as caught:
        npz_dataset(write_npz(tmp_path, pixels(*shape)))
    one_line(caught)


def test_samples_come_in_the_order_asked_for(tmp_path: Path) -> None:
    images, labels = pixels(6, 4, 4), np.array([0, 1, 2, 3, 4, 5], dtype=np.int32)
    dataset = npz_dataset(write_npz(tmp_path, images, labels))
    samples = dataset.load([4, 0, 4])
    assert samples.targets.tolist() == [4, 0, 4]
    assert samples.targets.dtype == torch.int64
    assert torch.equal(samples.inputs[:, 0], torch.from_numpy(images[[4, 0, 4]]).float() / 255)
    assert dataset.sample_ids == ["0", "1", "2", "3", "4", "5"]


def test_floats_are_taken_as_they_are(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((4, 5, 5, 3))
    loaded = npz_dataset(write_npz(tmp_path, images)).load(range(4)).inputs
    assert torch.equal(loaded, torch.from_numpy(images).float().permute(0, 3, 1, 2))


def test_bytes_stay_bytes_in_memory(tmp_path: Path) -> None:
    assert npz_dataset(write_npz(tmp_path, pixels(4, 5, 5))).images.dtype == np.uint8


def test_the_revision_follows_the_contents_and_not_the_file(tmp_path: Path) -> None:
    images, labels = pixels(4, 5, 5), np.arange(4)
    first = npz_dataset(write_npz(tmp_path, images, labels)).revision
    np.savez_compressed(tmp_path / "other.npz", images=images, labels=labels)
    assert npz_dataset(str(tmp_path / "other.npz")).revision == first

    one_pixel = images.copy()
    one_pixel[3, 4, 4] ^= 1
    assert npz_dataset(write_npz(tmp_path, one_pixel, labels)).revision != first
    assert npz_dataset(write_npz(tmp_path, images, labels[::-1])).revision != first


def test_labels_in_a_column_are_labels(tmp_path: Path) -> None:
    dataset = npz_dataset(write_npz(tmp_path, pixels(3, 4, 4), np.array([[2], [0], [1]])))
    assert dataset.load([0, 1, 2]).targets.tolist() == [2, 0, 1]


WRONG_ARRAYS = {
    "floats up to 255": (pixels(2, 4, 4).astype(np.float32), [0, 1], r"not in \[0, 1\]; divide by 255"),
    "normalised": (np.linspace(-2, 2, 32).reshape(2, 4, 4), [0, 1], "undo the normalisation"),
    "NaN": (np.full((2, 4, 4), np.nan), [0, 1], "NaN"),
    "infinite": (np.array([0.0, np.inf] * 16).reshape(2, 4, 4), [0, 1], "NaN or infinite"),
    "wide integers": (pixels(2, 4, 4).astype(np.int64), [0, 1], "images are int64; store uint8"),
    "a vector": (pixels(4), [0, 1, 2, 3], "is needed"),
    "no images": (pixels(0, 4, 4), [], "no images"),
    "fewer labels": (pixels(2, 4, 4), [0], r"labels have shape \[1\] for 2 images"),
    "float labels": (pixels(2, 4, 4), [0.0, 1.0], "labels are float64"),
    "one-hot labels": (pixels(2, 4, 4), [[0, 1], [1, 0]], r"labels have shape \[2, 2\]"),
    "a negative label": (pixels(2, 4, 4), [0, -1], "label -1 is negative"),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_wrong_arrays_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    images, labels, message = WRONG_ARRAYS[case]
    with pytest.raises(UsageError, match=message) as caught:
        npz_dataset(write_npz(tmp_path, images, np.array(labels)))
    one_line(caught)


def test_a_label_beyond_the_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path, pixels(3, 4, 4), np.array([0, 1, 2]))
    assert npz_dataset(path, classes=3).classes == 3
    with pytest.raises(UsageError, match="label 2 does not fit 2 classes"):
        npz_dataset(path, classes=2)


def test_a_missing_array_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no array 'image'\. Did you mean 'images'\?"):
        npz_dataset(write_npz(tmp_path, pixels(2, 4, 4)), images="image")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write_npz(tmp_path, pixels(2, 4, 4))
    with pytest.raises(UsageError, match=r"Did you mean 'data\.npz'\?"):
        npz_dataset(str(tmp_path / "dota.npz"))
    with pytest.raises(UsageError, match="is a folder"):
        npz_dataset(str(tmp_path))


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped", "npy"])
def test_a_file_that_is_no_npz_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    file = Path(write_npz(tmp_path, pixels(20, 8, 8)))
    whole = file.read_bytes()
    middle = len(whole) // 3
    contents = {
        "empty": b"",
        "text": b"images,labels\n1,2\n",
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40]) + whole[middle + 40 :],
    }
    if damage == "npy":
        np.save(tmp_path / "one.npy", pixels(2, 4, 4))
        (tmp_path / "one.npy").rename(file)
    else:
        file.write_bytes(contents[damage])
    with pytest.raises(UsageError) as caught:
        npz_dataset(str(file))
    assert str(file) in one_line(caught)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds Python objects") as caught:
        npz_dataset(write_npz(tmp_path, pixels(2, 4, 4), np.array([0, "one"], dtype=object)))
    one_line(caught)


# ---------------------------------------------------------------- image-folder


def write_images(root: Path, names: list[str], size: tuple[int, int] = (10, 8)) -> None:
    """Image files of width and height `size`, of random pixels that differ from file to file."""
    for seed, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(size[1], size[0], 3, seed=seed)).save(file)


def test_classes_are_subfolders_in_sorted_order(tmp_path: Path) -> None:
    write_images(tmp_path, ["dog/a.png", "cat/b.png", "cat/deep/c.png", ".cache/d.png", "bird/e.png"])
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    dataset = image_folder(str(tmp_path))
    labels = dict(zip(dataset.sample_ids, dataset.load(range(4)).targets.tolist(), strict=True))
    assert labels == {"bird/e.png": 0, "cat/b.png": 1, "cat/deep/c.png": 1, "dog/a.png": 2}
    assert dataset.classes == 3


def test_classes_can_be_named_by_their_number(tmp_path: Path) -> None:
    write_images(tmp_path, ["243/a.png", "7/b.png"])
    dataset = image_folder(str(tmp_path), labels="name")
    labels = dict(zip(dataset.sample_ids, dataset.load([0, 1]).targets.tolist(), strict=True))
    assert labels == {"243/a.png": 243, "7/b.png": 7}
    assert dataset.classes is None
    write_images(tmp_path, ["cat/c.png"])
    with pytest.raises(UsageError, match="labels='name' needs class numbers"):
        image_folder(str(tmp_path), labels="name")


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    write_images(tmp_path, ["cat/a.png"])
    wanted = torch.from_numpy(pixels(8, 10, 3, seed=0)).permute(2, 0, 1)[None].float() / 255
    samples = image_folder(str(tmp_path)).load([0])
    assert torch.equal(samples.inputs, wanted)
    assert samples.inputs.dtype == torch.float32
    assert image_folder(str(tmp_path), mode="L").load([0]).inputs.shape == (1, 1, 8, 10)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(8, 70), height=st.integers(8, 70), size=st.integers(8, 40), cut=st.integers(0, 7))
def test_images_are_prepared_exactly_as_torchvision_does(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, size: int, cut: int
) -> None:
    root = tmp_path_factory.mktemp("folder")
    write_images(root, ["cat/a.png"], (width, height))
    with Image.open(root / "cat" / "a.png") as image:
        wanted = Compose([Resize(size), CenterCrop(size - cut), ToTensor()])(image.convert("RGB"))
    assert torch.equal(image_folder(str(root), size=size, crop=size - cut).load([0]).inputs[0], wanted)


def test_size_alone_gives_squares_of_that_size(tmp_path: Path) -> None:
    write_images(tmp_path, ["cat/a.png"], (30, 20))
    write_images(tmp_path, ["cat/b.png"], (20, 50))
    assert image_folder(str(tmp_path), size=16).load([0, 1]).inputs.shape == (2, 3, 16, 16)


def test_the_first_samples_are_not_all_of_one_class(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(20)], (4, 4))
    first_half = image_folder(str(tmp_path)).load(range(20)).targets
    # 20 of 40 drawn at random: outside 4..16 of one class with probability 2e-4; the order is fixed by the names.
    assert 4 <= int(first_half.sum()) <= 16


def test_order_and_revision_do_not_depend_on_the_place(tmp_path: Path) -> None:
    names = ["dog/a.png", "cat/b.png", "cat/c.png"]
    write_images(tmp_path / "one", names)
    write_images(tmp_path / "two" / "deeper", names)
    one, two = image_folder(str(tmp_path / "one")), image_folder(str(tmp_path / "two" / "deeper"))
    assert one.sample_ids == two.sample_ids
    assert one.revision == two.revision


def test_the_revision_changes_with_anything_that_changes_a_sample(tmp_path: Path) -> None:
    write_images(tmp_path, ["cat/a.png", "dog/b.png"])
    path = str(tmp_path)
    revisions = [
        image_folder(path).revision,
        image_folder(path, size=8).revision,
        image_folder(path, mode="L").revision,
    ]
    (tmp_path / "cat" / "a.png").rename(tmp_path / "cat" / "z.png")
    revisions.append(image_folder(path).revision)
    (tmp_path / "dog" / "b.png").write_bytes((tmp_path / "cat" / "z.png").read_bytes())
    revisions.append(image_folder(path).revision)
    (tmp_path / "ant").mkdir()  # labels follow the sorted order
    revisions.append(image_folder(path).revision)
    assert len(set(revisions)) == len(revisions)


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    write_images(tmp_path, ["cat/a.png"], (10, 8))
    write_images(tmp_path, ["cat/b.png"], (8, 10))
    dataset = image_folder(str(tmp_path))
    for batch in ([0, 1], [1]):  # whatever the batch
        with pytest.raises(UsageError, match=r"differ in size .* add size=") as caught:
            dataset.load(batch)
        one_line(caught)


@pytest.mark.parametrize("contents", [b"", b"not an image", None])
def test_an_unreadable_image_is_named(tmp_path: Path, contents: bytes | None) -> None:
    write_images(tmp_path, ["cat/a.png"], (60, 60))
    file = tmp_path / "cat" / "a.png"
    file.write_bytes(file.read_bytes()[:2000] if contents is None else contents)
    with pytest.raises(UsageError, match=r"cannot read the image .*a\.png") as caught:
        image_folder(str(tmp_path)).load([0])
    one_line(caught)


def test_an_image_of_16_bits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "cat" / "a.png")
    with pytest.raises(UsageError, match="more than 8 bits"):
        image_folder(str(tmp_path)).load([0])


def test_a_crop_larger_than_the_image_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, ["cat/a.png"], (10, 8))
    with pytest.raises(UsageError, match="10x8, smaller than crop=9; add size=9"):
        image_folder(str(tmp_path), crop=9).load([0])


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        image_folder(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="has no subfolders"):
        image_folder(str(tmp_path))
    (tmp_path / "cat").mkdir()
    with pytest.raises(UsageError, match="no images below"):
        image_folder(str(tmp_path))
    with pytest.raises(UsageError, match="size must be at least 1"):
        image_folder(str(tmp_path), size=0)
