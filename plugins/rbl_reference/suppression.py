"""Non-maximum suppression by torchvision's operator, several times as fast as the core's, or else by the core's."""

import functools
import importlib.util
import itertools
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustbench_lab.tasks import boxes as core

IMAGES_AT_ONCE = 3
"""In one call of the operator: fewer pay its fixed cost more often, of more it compares too many pairs of boxes."""


def keep_best(boxes: Tensor, scores: Tensor, labels: Tensor, most_overlap: float) -> Tensor:
    """As `robustbench_lab.tasks.boxes.keep_best`."""
    operator = _torchvision_nms(boxes.device)
    if operator is None or not labels.numel():
        return core.keep_best(boxes, scores, labels, most_overlap)
    apart = _far_apart(boxes, labels).flatten(0, 1)
    there = (scores > 0).flatten().nonzero().squeeze(1)
    at_once = IMAGES_AT_ONCE * scores.shape[1]
    borders = torch.arange(at_once, labels.numel() + at_once, at_once, device=there.device)
    ends = torch.searchsorted(there, borders).tolist()
    surest = scores.flatten().double()
    kept = torch.zeros_like(labels, dtype=torch.bool)
    for start, end in itertools.pairwise([0, *ends]):
        places = there[start:end]
        found = operator(apart.index_select(0, places), surest.index_select(0, places), most_overlap)
        kept.view(-1)[places.index_select(0, found)] = True
    return kept


def _far_apart(boxes: Tensor, labels: Tensor) -> Tensor:
    """The boxes in float64, those of other classes and neighbouring images out of one another's reach."""
    images = torch.arange(len(labels), device=labels.device)[:, None] % IMAGES_AT_ONCE
    groups = labels + (labels.max() + 1) * images
    boxes = boxes.double().nan_to_num(0.0, 0.0, 0.0)  # one that is no number must not reach the others
    return boxes + (groups * (boxes.max() - boxes.min() + 1))[:, :, None]


@functools.cache
def _torchvision_nms(device: torch.device) -> Callable[..., Any] | None:
    """None where torchvision is absent, does not match torch, or was built without that kind of device."""
    try:
        if not hasattr(torch.ops.torchvision, "nms"):
            _load_operators()
        operator: Callable[..., Any] = torch.ops.torchvision.nms.default
        operator(torch.zeros(1, 4, device=device), torch.zeros(1, device=device), 0.5)
    except (ImportError, OSError, RuntimeError):  # also NotImplementedError
        return None
    return operator


def _load_operators() -> None:
    """The library that holds torchvision's operators, without its Python: importing that takes longer than torch.

    Raises ImportError where there is none, OSError where it was built for another torch.
    """
    package = importlib.util.find_spec("torchvision")
    folders = [Path(folder) for folder in (package.submodule_search_locations or ())] if package else []
    for folder, name, ending in itertools.product(folders, ("_C_stable", "_C"), EXTENSION_SUFFIXES):
        if (folder / (name + ending)).is_file():
            torch.ops.load_library(folder / (name + ending))
            return
    raise ImportError("torchvision has no library of operators")
