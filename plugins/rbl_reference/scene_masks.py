"""The scenes of `digit-scenes` with a class for each pixel: the bundled data of the task `segmentation`."""

from collections.abc import Sequence
from typing import Annotated, get_args

import numpy as np
import torch
from pydantic import Field

from rbl_reference.digits import CLASSES as DIGITS
from rbl_reference.digits import Split
from rbl_reference.scenes import paint, read_material, revision_of
from robustbench_lab.contracts import Bounds, Samples
from robustbench_lab.errors import UsageError, did_you_mean

CLASSES = 1 + DIGITS
"""Class 0 is the background, class 1 + n the digit n."""


class SceneMasks:
    """Images `[3, 64, 64]` in [0, 1] with 1 to 5 handwritten digits each, and the class of each pixel.

    Scene n is that of `digit-scenes`; a pixel is a digit's where ink covers at least half of it.
    """

    bounds = Bounds(0.0, 1.0)
    classes = CLASSES
    class_names = ("background", *(str(digit) for digit in range(DIGITS)))

    def __init__(self, *, split: Split = "test", scenes: Annotated[int, Field(ge=1)] = 50) -> None:
        """scenes: how many; each number gives another one."""
        if split not in get_args(Split):
            raise UsageError(f"dataset 'scene-masks' has no split '{split}'.{did_you_mean(split, get_args(Split))}")
        names = [f"{split}/{index:05d}" for index in range(scenes)]
        self.sample_ids: tuple[str, ...] = tuple(f"scene-masks/{name}" for name in names)
        material = read_material(split)
        painted = [paint(f"digit-scenes/{name}", *material) for name in names]
        images, masks = (np.stack([scene[part] for scene in painted]) for part in (0, 3))
        self.revision = revision_of(images, masks)
        self._images, self._masks = torch.from_numpy(images), torch.from_numpy(masks)

    def load(self, indices: Sequence[int]) -> Samples:
        """Images float32 `[N, 3, 64, 64]` and masks uint8 `[N, 64, 64]`."""
        index = torch.as_tensor(indices, dtype=torch.long)
        return Samples(self._images[index].float().div(255), self._masks[index])
