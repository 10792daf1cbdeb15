"""What an image processor of transformers does to images, on tensors, so that gradient flows through it."""

from typing import Any

import torch
from torch import Tensor

from robustbench_lab.errors import UsageError


class Preparation:
    """Resizing, scaling and normalisation as `preprocessor_config.json` says.

    All images of a batch have one size, so that nothing is padded.
    """

    def __init__(self, processor: Any, source: str) -> None:
        if processor.do_pad and getattr(processor, "pad_size", None):
            raise UsageError(f"{source}: it pads images to a fixed size, which is not offered: set pad_size to null")
        self.processor = processor

    def __call__(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to what the network takes."""
        processor = self.processor
        x = images
        if processor.do_resize:
            x = processor.resize(x, size=processor.size, resample=processor.resample)
        factor = 255 * (processor.rescale_factor if processor.do_rescale else 1.0)
        if abs(factor - 1) > 1e-6:
            x = x * factor
        if processor.do_normalize:
            mean, std = (torch.tensor(one).to(x).view(-1, 1, 1) for one in (processor.image_mean, processor.image_std))
            x = (x - mean) / std
        return x

    def detections(self, outputs: Any, threshold: float, size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """The library's own: boxes in pixels of images of `size` (height, width), scores, and labels of its own."""
        sizes = [size] * len(outputs.logits)
        found: list[dict[str, Tensor]] = self.processor.post_process_object_detection(
            outputs, threshold=threshold, target_sizes=sizes
        )
        return found
