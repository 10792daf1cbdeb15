"""Fresh Gaussian noise at every forward pass: the randomization behind smoothing (Cohen et al. 2019)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from rbl_defenses.preprocessed import Preprocessed


def gaussian_noise(model: nn.Module, *, sigma: Annotated[float, Field(gt=0)] = 0.1) -> nn.Module:
    """Add noise of standard deviation sigma, in the data's own units."""
    return Preprocessed(model, lambda x: x + sigma * torch.randn_like(x))
