"""Normalisation inside the model: what comes in are images in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustbench_lab.errors import UsageError


class Normalized(nn.Module):
    """`net((x - mean) / std)`, channel by channel, for images `[N, C, H, W]`."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise UsageError(f"mean has {len(mean)} entries and std {len(std)}: give one of each for every channel")
        if min(std) <= 0:
            raise UsageError(f"std must be greater than 0, not {min(std):g}")
        self.net = net
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` in [0, 1] to whatever the net returns. UsageError where C does not fit."""
        if x.ndim != 4 or x.shape[1] != len(self.mean):
            raise UsageError(
                f"mean and std are for images of {len(self.mean)} channels; these inputs have shape {list(x.shape[1:])}"
            )
        prediction: Tensor = self.net((x - self.mean) / self.std)
        return prediction


def normalized(net: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> nn.Module:
    """The net behind its normalisation, or as it is where neither `mean` nor `std` is given.

    Raises UsageError where only one of them is.
    """
    if mean is None and std is None:
        return net
    if mean is None or std is None:
        raise UsageError(f"give mean and std together: {'mean' if mean is None else 'std'} is missing")
    return Normalized(net, mean, std)
