"""Which samples an adversary can change at all: an image without a person has no patch on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from robustbench_lab.contracts import Region


@runtime_checkable
class Limited(Protocol):
    """A region that may hold nothing but the clean input of a sample."""

    @property
    def reachable(self) -> Tensor:
        """The samples with a value that may change, bool `[N]`."""
        ...


def reachable(region: Region) -> Tensor:
    """The samples with a value that may change, bool `[N]`: all, of a region that says nothing else."""
    if isinstance(region, Limited):
        return region.reachable
    return torch.ones(len(region.clean), dtype=torch.bool, device=region.clean.device)
