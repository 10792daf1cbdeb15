"""Images and labels from a NumPy .npz file."""

import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.image_arrays import ImageArrays, Layout, image_arrays
from robustbench_lab.plugin_tools.local_files import existing_file


def npz_dataset(
    path: str, images: str = "images", labels: str = "labels", layout: Layout = "auto", classes: int | None = None
) -> ImageArrays:
    """The arrays `images` and `labels` of the file `path`.

    Images are uint8 0..255 or floats in [0, 1]; labels are integers `[N]`. layout: order of the axes; `auto` takes
    N×H×W as one channel, and an axis of length 1, 3 or 4 at the end or after N as the channels. classes: how many there
    are, if that is to be checked. Sample ids are positions in the arrays. Raises UsageError.
    """
    file = existing_file(path, "npz")
    source = f"npz '{path}'"
    pixels, numbers = _read(file, (images, labels), source)
    return image_arrays(pixels, numbers, source=source, layout=layout, classes=classes)


def _read(file: Path, names: tuple[str, ...], source: str) -> list[NDArray[Any]]:
    try:
        archive = np.load(file, allow_pickle=False)
    except (BadZipFile, ValueError, EOFError, OSError) as error:
        raise UsageError(f"{source}: not a readable .npz file; write it with numpy.savez_compressed") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UsageError(f"{source}: a single array; write images and labels with numpy.savez_compressed")
    with archive:
        return [_array(archive, name, source) for name in names]


def _array(archive: np.lib.npyio.NpzFile, name: str, source: str) -> NDArray[Any]:
    if name not in archive.files:
        raise UsageError(f"{source}: there is no array '{name}'.{did_you_mean(name, archive.files)}")
    try:
        return np.asarray(archive[name])
    except (BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UsageError(f"{source}: array '{name}' is damaged; copy the file again") from error
    except ValueError as error:
        raise UsageError(f"{source}: array '{name}' holds Python objects; store plain numbers") from error
