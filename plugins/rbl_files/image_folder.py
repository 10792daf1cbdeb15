"""Image files in folders, one subfolder a class, prepared as torchvision's `Resize` and `CenterCrop` do it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.image_arrays import UNIT
from robustbench_lab.plugin_tools.image_files import SUFFIXES, UNREADABLE, images_below
from robustbench_lab.plugin_tools.local_files import existing_folder, listed
from robustbench_lab.provenance import file_sha256

Mode = Literal["RGB", "L"]


def image_folder(
    path: str,
    size: int | None = None,
    crop: int | None = None,
    mode: Mode = "RGB",
    labels: Literal["order", "name"] = "order",
) -> "ImageFolder":
    """The images below `path`; files of other kinds and names that start with a dot are left out.

    size: the shorter side is resized to it (bilinear with antialiasing, torchvision's default), keeping the aspect.
    crop: side of the square cut from the centre; by default `size`. With neither, all images must be of one size.
    labels: `order` numbers the subfolders in sorted order, as torchvision's ImageFolder; `name` reads the class number
    from the subfolder's name, for a folder that holds some of the classes only. Raises UsageError.
    """
    for name, value in (("size", size), ("crop", crop)):
        if value is not None and value < 1:
            raise UsageError(f"image-folder: {name} must be at least 1, not {value}")
    root = existing_folder(path, "image-folder")
    folders = sorted(one for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))
    if not folders:
        raise UsageError(f"image-folder: '{path}' has no subfolders; put the images of each class in one")
    numbers = _class_numbers(folders, path) if labels == "name" else range(len(folders))
    found = [(file, label) for folder, label in zip(folders, numbers, strict=True) for file in images_below(folder)]
    if not found:
        raise UsageError(f"image-folder: no images below '{path}' ({listed(sorted(SUFFIXES), len(SUFFIXES))})")
    # Sorted by hash, so that the first N are a fixed random choice from all classes.
    found.sort(key=lambda one: hashlib.sha256(one[0].relative_to(root).as_posix().encode()).digest())
    classes = len(folders) if labels == "order" else None
    return ImageFolder(root, tuple(found), size, size if crop is None else crop, mode, classes)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images that are read when asked for. Make one with `image_folder`."""

    root: Path
    files: tuple[tuple[Path, int], ...]
    """Each image with its label."""
    size: int | None
    crop: int | None
    mode: Mode
    classes: int | None
    bounds: Bounds = UNIT

    @cached_property
    def sample_ids(self) -> Sequence[str]:
        """Paths below the root, with forward slashes."""
        return [file.relative_to(self.root).as_posix() for file, _ in self.files]

    @cached_property
    def revision(self) -> str:
        """SHA-256 of every path, label and file, and of how images are prepared."""
        digest = hashlib.sha256(f"{self.size} {self.crop} {self.mode}\n".encode())
        for (file, label), sample_id in sorted(zip(self.files, self.sample_ids, strict=True), key=lambda one: one[1]):
            digest.update(f"{sample_id}\0{label}\0{file_sha256(file)}\n".encode())
        return digest.hexdigest()

    def load(self, indices: Sequence[int]) -> Samples:
        """Inputs float32 `[n, C, H, W]` in [0, 1], C = 3 for RGB and 1 for L; targets int64 `[n]`."""
        pixels = np.stack([self._prepared(self.files[index][0]) for index in indices])
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(255)
        return Samples(inputs, torch.tensor([self.files[index][1] for index in indices], dtype=torch.int64))

    def _prepared(self, file: Path) -> NDArray[np.uint8]:
        """One image, uint8 `[H, W, C]`."""
        image = _read(file, self.mode)
        if self.size is not None:
            image = _resized(image, self.size)
        if self.crop is not None:
            image = _cropped(image, self.crop, file)
        elif image.size != self._common_size:
            raise UsageError(
                f"image-folder: images differ in size ({_name_size(self._common_size)} and, in '{file}', "
                f"{_name_size(image.size)}): add size=256, crop=224 or what the model takes"
            )
        return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)

    @cached_property
    def _common_size(self) -> tuple[int, int]:
        return _read(self.files[0][0], self.mode).size


def _class_numbers(folders: Sequence[Path], path: str) -> list[int]:
    other = [folder.name for folder in folders if not (folder.name.isascii() and folder.name.isdigit())]
    if other:
        raise UsageError(
            f"image-folder: labels='name' needs class numbers as subfolders of '{path}', not {listed(other)}"
        )
    return [int(folder.name) for folder in folders]


def _read(file: Path, mode: Mode) -> Image.Image:
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise UsageError(f"image-folder: '{file}' has more than 8 bits a channel; convert it to 8 bits")
            return image.convert(mode)
    except UNREADABLE as error:
        raise UsageError(f"image-folder: cannot read the image '{file}'; repair it or take it out") from error


def _resized(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size`, the longer one rounded down, as torchvision's Resize."""
    short, long = min(image.size), max(image.size)
    if short == size:
        return image
    other = int(size * long / short)
    shape = (size, other) if image.width <= image.height else (other, size)
    return image.resize(shape, Image.Resampling.BILINEAR)


def _cropped(image: Image.Image, crop: int, file: Path) -> Image.Image:
    """The centre, rounded as torchvision's CenterCrop."""
    if min(image.size) < crop:
        raise UsageError(
            f"image-folder: '{file}' is {_name_size(image.size)}, smaller than crop={crop}; add size={crop}"
        )
    left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))


def _name_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
