"""scikit-learn's handwritten digits, with a split of its own that no library version can change.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository 1998
(https://archive.ics.uci.edu/dataset/80), the 1797 images of its test set, as scikit-learn ships them.
"""

from collections.abc import Sequence
from hashlib import blake2b, sha256
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from rbl_reference import scikit_learn_data
from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.errors import UsageError, did_you_mean

Split = Literal["test", "train"]

CLASSES = 10
GREY_LEVELS = 16
"""Pixels are counts 0..16 of inked cells in a 4x4 block."""
TEST_PER_CLASS = 45
"""A quarter of each class, which has 174 to 183 images."""


class Digits:
    """1797 real handwritten digits, 8x8 grey pixels in [0, 1]: 450 to test, the other 1347 to train on.

    The test split is the first 45 images of each class in the order of `hash_order`; both splits keep that order,
    so any first n samples are a mixture of classes.
    """

    bounds = Bounds(0.0, 1.0)
    classes = CLASSES

    def __init__(self, *, split: Split = "test") -> None:
        if split not in get_args(Split):
            raise UsageError(f"dataset 'digits' has no split '{split}'.{did_you_mean(split, get_args(Split))}")
        images, labels = scikit_learn_data.digits()
        chosen = split_indices(labels)[split]
        self.sample_ids: tuple[str, ...] = tuple(f"digits/{index:04d}" for index in chosen)
        self.revision = revision_of(split, chosen, images, labels)
        self._inputs = torch.from_numpy(images[chosen]).float().div(GREY_LEVELS).unsqueeze(1)
        self._targets = torch.from_numpy(labels[chosen]).long()

    def load(self, indices: Sequence[int]) -> Samples:
        """Images float32 `[N, 1, 8, 8]` in [0, 1] and classes int64 `[N]`."""
        index = torch.as_tensor(indices, dtype=torch.long)
        return Samples(self._inputs[index], self._targets[index])


def hash_order(count: int) -> list[int]:
    """0..count-1 shuffled by the BLAKE2b hash of each number: the same on every machine and for ever."""
    return sorted(range(count), key=lambda index: blake2b(f"digits/{index}".encode(), digest_size=8).digest())


def split_indices(labels: NDArray[np.uint8]) -> dict[str, list[int]]:
    """Positions in scikit-learn's array `[1797]` of the samples of each split, in `hash_order`."""
    splits: dict[str, list[int]] = {"test": [], "train": []}
    seen = [0] * CLASSES
    for index in hash_order(len(labels)):
        label = int(labels[index])
        splits["test" if seen[label] < TEST_PER_CLASS else "train"].append(index)
        seen[label] += 1
    return splits


def revision_of(split: str, indices: list[int], images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> str:
    """SHA-256 over the split's name, its indices and the bytes of its images and classes."""
    digest = sha256(f"{split}:{indices}".encode())
    digest.update(images[indices].tobytes())
    digest.update(labels[indices].tobytes())
    return digest.hexdigest()
