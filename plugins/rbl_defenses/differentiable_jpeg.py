"""JPEG with a gradient: the steps of the codec, its rounding replaced as Shin & Song 2017 do.

Shin & Song, "JPEG-resistant adversarial images" (NIPS workshop on machine learning and computer security, 2017):
rounding to `r` becomes `r + (x - r)**3`, whose slope says which coefficients are near to the next level.
"""

import functools
import io
import math

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

SIDE = 8
"""Of the blocks that are transformed by themselves."""
TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""JFIF's luminance and chrominance of red, green and blue; chrominance lies around 128."""


def differentiable_jpeg(images: Tensor, quality: int) -> Tensor:
    """Images `[N, 1 or 3, H, W]` in [0, 1] to about what JPEG makes of them, with a gradient.

    Colour is halved in both directions, as Pillow does by default.
    """
    pixels = images * 255
    if images.shape[1] == 1:
        (table,) = _tables(quality, 1)
        return (_through_blocks(pixels[:, 0], table)[:, None] / 255).clamp(0, 1)
    luminance, *chrominance = _tables(quality, 3)
    matrix = torch.tensor(TO_YCBCR, dtype=images.dtype, device=images.device)
    planes = torch.einsum("ij,njhw->nihw", matrix, pixels)
    bright = _through_blocks(planes[:, 0], luminance)[:, None]
    colour = _through_blocks_at_half_size(planes[:, 1:], chrominance)
    made = torch.einsum("ij,njhw->nihw", matrix.inverse(), torch.cat([bright, colour], dim=1))
    return (made / 255).clamp(0, 1)


def _through_blocks_at_half_size(colour: Tensor, tables: list[Tensor]) -> Tensor:
    """Chrominance `[N, 2, H, W]` around 0."""
    height, width = colour.shape[2:]
    even = functional.pad(colour, (0, width % 2, 0, height % 2), mode="replicate")
    small = functional.avg_pool2d(even, 2) + 128
    made = [_through_blocks(plane, table) for plane, table in zip(small.unbind(1), tables, strict=True)]
    return functional.interpolate(torch.stack(made, dim=1) - 128, scale_factor=2)[:, :, :height, :width]


def _through_blocks(plane: Tensor, table: Tensor) -> Tensor:
    """One plane `[N, H, W]` of 0 to 255: cosine transform of its blocks, rounded in units of the table, and back."""
    count, height, width = plane.shape
    pad = (0, -width % SIDE, 0, -height % SIDE)
    whole = functional.pad(plane[:, None], pad, mode="replicate")[:, 0] - 128
    rows, columns = (size // SIDE for size in whole.shape[1:])
    blocks = whole.reshape(count, rows, SIDE, columns, SIDE).transpose(2, 3)
    cosines, units = _cosines().to(plane), table.to(plane)
    coefficients = cosines @ blocks @ cosines.T / units
    restored = cosines.T @ (_almost_rounded(coefficients) * units) @ cosines
    return restored.transpose(2, 3).reshape(count, *whole.shape[1:])[:, :height, :width] + 128


def _almost_rounded(x: Tensor) -> Tensor:
    nearest = x.detach().round()
    return nearest + (x - nearest) ** 3


@functools.cache
def _cosines() -> Tensor:
    """The orthonormal type-II cosine transform, `[8, 8]`."""
    frequency, place = torch.arange(SIDE, dtype=torch.float64)[:, None], torch.arange(SIDE, dtype=torch.float64)
    rows = torch.cos((2 * place + 1) * frequency * math.pi / (2 * SIDE)) / 2
    rows[0] /= math.sqrt(2)
    return rows


@functools.cache
def _tables(quality: int, channels: int) -> list[Tensor]:
    """What Pillow's encoder divides the coefficients of each channel by at this quality, `[8, 8]` each."""
    buffer = io.BytesIO()
    Image.new("L" if channels == 1 else "RGB", (SIDE, SIDE)).save(buffer, "JPEG", quality=quality)
    found = Image.open(buffer).quantization  # type: ignore[attr-defined]
    return [torch.tensor(found[min(channel, 1)], dtype=torch.float64).view(SIDE, SIDE) for channel in range(channels)]
