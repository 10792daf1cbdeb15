"""Random resizing and padding (Xie, Wang, Zhang, Ren & Yuille, ICLR 2018, https://arxiv.org/abs/1711.01991)."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from pydantic import Field
from torch import Tensor, nn

from robustbench_lab.errors import SkipCell
from robustbench_lab.plugin_tools.moved_boxes import moved_back
from robustbench_lab.tasks.detector_output import DetectorOutput


def resize_pad(
    model: nn.Module,
    *,
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.9,
    canvas: Annotated[float, Field(gt=0, le=4)] = 1.0,
) -> nn.Module:
    """Each image anew at a random size and place on a black canvas, in every forward pass.

    Differentiable: the resizing is bilinear. The paper's, for images of 299 pixels, is smallest=0.903, canvas=1.107;
    the defaults leave the size alone that the model is given, which many models need. A detector's boxes are those of
    the image as it was.

    smallest: side of the smallest image, as a share of the canvas's; the largest fills it.
    canvas: side of the canvas, as a share of the image's.
    """
    return ResizePad(model, smallest, canvas)


class ResizePad(nn.Module):
    """See `resize_pad`."""

    def __init__(self, model: nn.Module, smallest: float, canvas: float) -> None:
        super().__init__()
        self.model = model
        self.smallest = smallest
        self.canvas = canvas

    def forward(self, x: Tensor) -> Any:
        """Images `[N, C, H, W]` in [0, 1] to the model's prediction."""
        if x.ndim != 4:
            raise SkipCell(f"resize-pad needs images [N, C, H, W]; these are {list(x.shape)}")
        scale, shift, size = self._drawn(x)
        prediction = self.model(resized_and_shifted(x, scale, shift, size))
        return moved_back(prediction, scale, shift) if isinstance(prediction, DetectorOutput) else prediction

    def _drawn(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The factor of each image's size, `[N]`, how far it is shifted to the right and down, `[N, 2]`, the canvas."""
        height, width = x.shape[2:]
        size = round(self.canvas * height), round(self.canvas * width)
        most = min(size[0] / height, size[1] / width)
        share, place = torch.rand(len(x), device=x.device), torch.rand(len(x), 2, device=x.device)
        scale = most * (self.smallest + (1 - self.smallest) * share)
        room = torch.stack([size[1] - scale * width, size[0] - scale * height], dim=1).clamp_min(0)
        return scale, room * place, size


def resized_and_shifted(images: Tensor, scale: Tensor, shift: Tensor, size: tuple[int, int]) -> Tensor:
    """Images `[N, C, H, W]` whose pixel `p` is moved to `p * scale + shift`, on a black canvas of `size`.

    scale: `[N]`. shift: `[N, 2]`, to the right and down, in pixels of the canvas. size: height and width of the canvas.
    """
    height, width = images.shape[2:]
    factors = [size[1] / (scale * width), size[0] / (scale * height)]
    # Where each pixel of the canvas comes from, in affine_grid's coordinates, in which both sides reach from -1 to 1.
    offsets = [
        factors[0] - 2 * shift[:, 0] / (scale * width) - 1,
        factors[1] - 2 * shift[:, 1] / (scale * height) - 1,
    ]
    nothing = torch.zeros_like(scale)
    across = torch.stack([factors[0], nothing, offsets[0]], dim=1)
    down = torch.stack([nothing, factors[1], offsets[1]], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), [*images.shape[:2], *size], align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
