"""JPEG compression as a defense (Dziugaite, Ghahramani & Roy 2016, https://arxiv.org/abs/1608.00853)."""

import io
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from rbl_defenses.differentiable_jpeg import differentiable_jpeg
from rbl_defenses.preprocessed import Preprocessed
from robustbench_lab.errors import SkipCell


def jpeg(model: nn.Module, *, quality: Annotated[int, Field(ge=1, le=95)] = 75) -> nn.Module:
    """Compress and decompress images `[N, 1 or 3, H, W]` in [0, 1].

    What the model sees is the codec's own output; the gradient is that of a differentiable JPEG. The identity instead
    (as BPDA takes for small changes) makes the defense look far better than it is.
    """

    def change(x: Tensor) -> Tensor:
        made = recompressed(x.detach(), quality)
        if not torch.is_grad_enabled():
            return made
        like_it = differentiable_jpeg(x, quality)
        return like_it + (made - like_it).detach()

    return Preprocessed(model, change)


def recompressed(images: Tensor, quality: int) -> Tensor:
    """Images `[N, 1 or 3, H, W]` in [0, 1] through JPEG of this quality. Raises SkipCell for other inputs."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise SkipCell(f"jpeg needs grey or colour images [N, 1 or 3, H, W]; these are {list(images.shape)}")
    pixels = (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    made = np.stack([_one(image, quality) for image in pixels])
    return torch.from_numpy(made).to(images.device).permute(0, 3, 1, 2).to(images.dtype) / 255


def _one(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).reshape(image.shape)
