"""torchvision's datasets of small images of one size, from local files or downloaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torchvision

from robustbench_lab.errors import UsageError, describe_error, did_you_mean
from robustbench_lab.plugin_tools.image_arrays import ImageArrays, Layout, image_arrays

Split = Literal["train", "test"]


@dataclass(frozen=True)
class _Form:
    """How a torchvision dataset class is asked, and what it holds in `data`."""

    layout: Layout
    classes: int
    labels: str = "targets"
    train_flag: bool = True
    """`train=True|False`; otherwise `split="train"|"test"`."""


FORMS = {
    "CIFAR10": _Form("NHWC", 10),
    "CIFAR100": _Form("NHWC", 100),
    "FashionMNIST": _Form("NHW", 10),
    "KMNIST": _Form("NHW", 10),
    "MNIST": _Form("NHW", 10),
    "STL10": _Form("NCHW", 10, labels="labels", train_flag=False),
    "SVHN": _Form("NCHW", 10, labels="labels", train_flag=False),
    "USPS": _Form("NHW", 10),
}


def torchvision_dataset(name: str, *, root: str = "data", split: Split = "test", download: bool = False) -> ImageArrays:
    """The dataset `torchvision.datasets.<name>` below `root`, downloaded there first if `download`.

    Sample ids are positions in torchvision's order. Raises UsageError.
    """
    form = FORMS.get(name)
    if form is None:
        raise UsageError(
            f"torchvision:{name} is not offered.{did_you_mean(name, FORMS)} For image files: image-folder(path=...)"
        )
    data = _load(name, form, str(Path(root).expanduser()), split, download)
    images, labels = np.asarray(data.data), np.asarray(getattr(data, form.labels))
    return image_arrays(images, labels, source=f"torchvision:{name}", layout=form.layout, classes=form.classes)


def _load(name: str, form: _Form, root: str, split: Split, download: bool) -> Any:
    asked = {"train": split == "train"} if form.train_flag else {"split": split}
    try:
        return getattr(torchvision.datasets, name)(root, download=download, **asked)
    except Exception as error:  # files absent or damaged, no network, no scipy for SVHN
        remedy = "check the connection" if download else "add download=True, or root= the folder that holds it"
        raise UsageError(
            f"torchvision:{name}: cannot be read from '{root}' ({describe_error(error)}); {remedy}"
        ) from error
