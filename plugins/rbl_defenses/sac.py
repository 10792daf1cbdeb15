"""Segment and complete against patches (Liu, Levine, Lau, Chellappa & Feizi, CVPR 2022, https://arxiv.org/abs/2112.04532)."""

from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from pydantic import Field
from torch import Tensor, nn

from rbl_defenses.patch_segmenter import patch_segmenter
from rbl_defenses.preprocessed import Preprocessed
from robustbench_lab.errors import SkipCell
from robustbench_lab.plugin_tools.bpda import straight_through

Share = Annotated[float, Field(gt=0, le=1)]
SIDES = (0.125, 0.15625, 0.1875, 0.21875, 0.25, 0.28125, 0.3125, 0.375, 0.4375, 0.5)
"""Of patches, as shares of the image's shorter side."""
TOLERANCES = (0.1, 0.37, 0.559, 0.691)
"""Distances to a square, as shares of its area, that are tried in turn: 1 - 0.9 * 0.7^k, as in the authors' code."""


class SegmentAndComplete(Preprocessed):
    """See `sac`; a module of its own, so that the segmenter goes where the model goes."""

    def __init__(self, model: nn.Module, segmenter: nn.Module, sides: tuple[float, ...]) -> None:
        super().__init__(model, lambda x: x * (1 - _mask(segmenter, x, sides)))
        self.segmenter = segmenter


def sac(model: nn.Module, *, sides: Annotated[list[Share], Field(min_length=1)] | None = None) -> nn.Module:
    """Black out what a small network takes for a patch, completed to squares, in images `[N, C, H, W]` in [0, 1].

    The network (`patch_segmenter.py`) says of each pixel whether it is a patch's. What it found is replaced by the
    union of the squares whose Hamming distance to it is at most a tenth of their area; what is left then, by squares
    that are less near. As there may be several patches, pixels farther from a square than half its side do not count;
    in the paper there is one patch, and all of them do. The gradient goes through the network; that of rounding and
    completing is taken as the identity (BPDA), as in the authors' adaptive attack.

    sides: of the squares, as shares of the image's shorter side; None: from an eighth to a half.
    """
    return SegmentAndComplete(model, patch_segmenter().requires_grad_(False), tuple(sides or SIDES))


def _mask(segmenter: nn.Module, images: Tensor, sides: tuple[float, ...]) -> Tensor:
    """1 where a patch is thought to be, 0 elsewhere, `[N, 1, H, W]`; its gradient is that of the probability."""
    if images.ndim != 4:
        raise SkipCell(f"sac needs images [N, C, H, W]; these are {list(images.shape)}")
    coloured = images if images.shape[1] == 3 else images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    pixels = sorted({max(1, round(side * min(images.shape[2:]))) for side in sides})
    return straight_through(segmenter(coloured).sigmoid(), lambda chance: completed(chance > 0.5, pixels))


@torch.no_grad()
def completed(found: Tensor, sides: list[int]) -> Tensor:
    """The union of the squares near what was found, bool `[N, 1, H, W]`, as 0 or 1 of the same shape.

    sides: of the squares, in pixels, at most those of the image. What no square has covered yet is tried with the next
    tolerance, and what none covers in the end is no patch.
    """
    union = torch.zeros(found.shape, device=found.device)
    for tolerance in TOLERANCES:
        left = found & (union == 0)
        fewest = (1 - tolerance) * min(sides) ** 2  # pixels that a square must have found in it
        rows = (left.flatten(1).sum(1) >= fewest).nonzero().squeeze(1)
        if len(rows):
            margin = max(sides) // 2
            sums = _corner_sums(F.pad(left.index_select(0, rows).float(), (margin,) * 4))
            for side in sides:
                near = _distance(sums, side, margin) <= tolerance
                if bool(near.any()):
                    union[rows] = torch.maximum(union[rows], _covered(near, side))
    return union


def _corner_sums(values: Tensor) -> Tensor:
    """Of everything above and to the left of each corner between pixels, `[N, 1, H + 1, W + 1]`."""
    return F.pad(values.cumsum(2).cumsum(3), (1, 0, 1, 0))


def _square_sums(corner_sums: Tensor, side: int) -> Tensor:
    """Of every square of a side, by its upper left pixel, `[N, 1, H - s + 1, W - s + 1]`."""
    upper, lower = corner_sums[:, :, :-side], corner_sums[:, :, side:]
    return lower[..., side:] - lower[..., :-side] - upper[..., side:] + upper[..., :-side]


def _distance(corner_sums: Tensor, side: int, margin: int) -> Tensor:
    """Pixels that differ from each square, in it and near it, as a share of its area, by its upper left pixel.

    corner_sums: of a mask with so many empty pixels around it as a margin, at least half of the side.
    """
    reach = margin - side // 2
    inside = _square_sums(_without(corner_sums, margin), side)
    near = _square_sums(_without(corner_sums, reach), side + 2 * (side // 2))
    return (side * side - 2 * inside + near) / (side * side)


def _without(corner_sums: Tensor, margin: int) -> Tensor:
    """Without the outermost corners."""
    height, width = corner_sums.shape[2:]
    return corner_sums[:, :, margin : height - margin, margin : width - margin]


def _covered(squares: Tensor, side: int) -> Tensor:
    """Where at least one of the squares is, 0 or 1 `[N, 1, H, W]`; squares: bool, by their upper left pixel."""
    return (_square_sums(_corner_sums(F.pad(squares.float(), (side - 1,) * 4)), side) > 0).float()
