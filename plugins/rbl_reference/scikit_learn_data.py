"""The images that scikit-learn ships, read from its files: importing scikit-learn itself takes a second.

The same arrays as its `load_digits` and `load_sample_image`, which are used where it keeps its files elsewhere.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 8
PHOTOGRAPHS = ("china.jpg", "flower.jpg")


def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All images `[1797, 8, 8]` with pixels 0..16, and their classes `[1797]`."""
    file = _folder() / "data" / "digits.csv.gz"
    if not file.is_file():
        from sklearn.datasets import load_digits

        data = load_digits()
        return data.images.astype(np.uint8), data.target.astype(np.uint8)
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float64).astype(np.uint8)
    return table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]


def photograph(name: str) -> NDArray[np.uint8]:
    """One of PHOTOGRAPHS, `[427, 640, 3]`."""
    file = _folder() / "images" / name
    if not file.is_file():
        from sklearn.datasets import load_sample_image

        return np.asarray(load_sample_image(name), np.uint8)
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def _folder() -> Path:
    spec = find_spec("sklearn")  # finds, and imports nothing
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    return Path(spec.origin).parent / "datasets"
