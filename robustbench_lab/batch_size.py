"""How many samples go through a model at once, where the user names no number."""

from dataclasses import dataclass

import torch

MOST = 512
CPU_VALUES = 1 << 21
"""Input values in one pass on a CPU (512 CIFAR images, 13 of ImageNet's). Larger batches gain nothing there, and
running out of memory is no exception that could be caught, but the end of the process."""


def first_batch_size(device: torch.device, values: int) -> int:
    """Samples of `values` numbers each in the first batch; it is halved whenever memory runs out."""
    if device.type != "cpu":
        return MOST
    return max(1, min(MOST, CPU_VALUES // max(1, values)))


@dataclass
class BatchSize:
    """Samples in one query at most; shared by an attack problem and its parts."""

    size: int
