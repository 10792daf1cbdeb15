"""Back to float32 after layers that mixed precision ran in 16 bits."""

from __future__ import annotations

import torch
from torch import Tensor


def in_full_precision(tensor: Tensor) -> Tensor:
    """float32 where it is less: coordinates and losses need it. Anything else stays as it is."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
