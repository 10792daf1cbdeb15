"""Noise: of electronics (Gaussian), of few photons (Poisson), of broken pixels (impulses)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import pdtr
from torch import Tensor

if TYPE_CHECKING:
    from rbl_attacks.natural.corruption_kinds import Numbers

LEVELS = 256


def gaussian(x: Tensor, scale: float, numbers: Numbers) -> Tensor:
    """Normal noise of standard deviation `scale` on every value."""
    return x + scale * numbers.normal("gaussian_noise")


def shot(x: Tensor, photons: float, numbers: Numbers) -> Tensor:
    """Every value, rounded to 8 bits, counted in photons, of which white has this many on average: Poisson numbers."""
    level = (x * (LEVELS - 1)).round().long()
    table = _poisson_steps(photons).to(x.device)
    # By inversion. Row r of the table holds r plus the distribution for level r: one ascending sequence of all.
    place = torch.searchsorted(table.flatten(), level + numbers.uniform("shot_noise").double(), right=True)
    count = (place - level * table.shape[1]).clamp(max=table.shape[1] - 1)
    return count.to(x.dtype) / photons


@lru_cache(maxsize=16)
def _poisson_steps(photons: float) -> Tensor:
    """Row r: r plus the chance of at most 0, 1, ... photons where the mean is r / 255 of `photons`; float64."""
    most = math.ceil(photons + 8 * math.sqrt(photons) + 8)
    mean = np.arange(LEVELS)[:, None] * (photons / (LEVELS - 1))
    return torch.from_numpy(np.arange(LEVELS)[:, None] + pdtr(np.arange(most)[None, :], mean))


def impulse(x: Tensor, share: float, numbers: Numbers) -> Tensor:
    """A share of the values becomes black or white."""
    extreme = (numbers.uniform("impulse_noise/colour") < 0.5).to(x.dtype)
    return torch.where(numbers.uniform("impulse_noise/place") < share, extreme, x)
