"""What an image processor of transformers does to the images of a classifier, with a gradient.

Scaling, normalisation and the order of channels are read off the processor itself, from what it makes of single
colours, so that each processor's own rules hold. The processor is not used any further: it keeps tensors of inference
mode, which no gradient passes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from robustbench_lab.errors import UsageError, describe_error

TOLERANCE = 1e-4
OTHER_SIZE = 8
"""So many pixels more than it takes have the images with which resizing is tried."""


class PixelwisePreparation(nn.Module):
    """`images[:, order] * scale + shift`, behind resizing and cropping where that is asked for."""

    order: Tensor
    """`[3]`: which channel of the images each channel of the network is."""
    scale: Tensor
    """`[3, 1, 1]`, as is `shift`."""
    shift: Tensor

    def __init__(self, processor: Any, source: str, *, resize: bool) -> None:
        super().__init__()
        self.processor = processor
        self.source = source
        self.resize = resize
        self.size = _prepared_size(processor)
        colours = torch.cat([torch.zeros(1, 3), torch.eye(3)])[:, :, None, None].expand(-1, -1, 4, 4)
        made = self._library(colours, resize=False)[:, :, 0, 0]
        gains = (made[1:] - made[0]).T  # [channel of the network, channel of the images]
        order = gains.abs().argmax(1)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("scale", gains.gather(1, order[:, None])[..., None], persistent=False)
        self.register_buffer("shift", made[0][:, None, None], persistent=False)
        self._check()

    def forward(self, images: Tensor) -> Tensor:
        """Images `[N, 3, H, W]` in [0, 1] to what the network takes. Raises UsageError for another size."""
        x = images
        if self.resize:
            x = self._resized(x)
        elif self.size is not None and tuple(x.shape[-2:]) != self.size:
            takes, given = (f"{one[0]} x {one[1]}" for one in (self.size, x.shape[-2:]))
            raise UsageError(
                f"{self.source} takes images of {takes}, not {given}: give the data that size, or add resize=True"
            )
        return x[:, self.order] * self.scale + self.shift

    def _resized(self, images: Tensor) -> Tensor:
        processor, x = self.processor, images
        if processor.do_resize:
            how = {"crop_pct": processor.crop_pct} if hasattr(processor, "crop_pct") else {}
            x = processor.resize(x, processor.size, processor.resample, **how)
        if getattr(processor, "do_center_crop", False):
            x = processor.center_crop(x, processor.crop_size)
        return x

    def _library(self, images: Tensor, *, resize: bool) -> Tensor:
        """The processor's own preparation of images in [0, 1]."""
        left_out = {} if resize else {"do_resize": False, "do_center_crop": False}
        try:
            given = {"input_data_format": "channels_first", "return_tensors": "pt", **left_out}
            made: Tensor = self.processor(images * 255, **given)["pixel_values"]
        except Exception as error:  # whatever a processor asks for, beside images
            raise UsageError(f"{self.source}: its image processor fails ({describe_error(error)})") from error
        if made.ndim != 4 or made.shape[:2] != images.shape[:2]:
            raise UsageError(f"{self.source}: its image processor makes no images of three channels")
        return made

    def _check(self) -> None:
        """Raise UsageError where the processor does anything else."""
        height, width = self.size or (32, 32)
        more = OTHER_SIZE if self.resize else 0
        trial = torch.rand((1, 3, height + more, width + more), generator=torch.Generator().manual_seed(0))
        expected, made = self._library(trial, resize=self.resize), self(trial)
        if made.shape != expected.shape or bool((made - expected).abs().max() > TOLERANCE * expected.abs().max()):
            raise UsageError(f"{self.source}: its image processor prepares images in a way that is not offered")


def _prepared_size(processor: Any) -> tuple[int, int] | None:
    """Height and width that images have behind the processor; None where they keep their own."""
    if getattr(processor, "do_center_crop", False):
        sizes = processor.crop_size
    elif processor.do_resize:
        sizes = processor.size
    else:
        return None
    edge = sizes.shortest_edge
    return (edge, edge) if edge else (sizes.height, sizes.width)
