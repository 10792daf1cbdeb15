"""What makes a patch printable: smooth areas, in colours that a printer has.

Sharif, Bhagavatula, Bauer & Reiter, CCS 2016 (https://doi.org/10.1145/2976749.2978392), section 4; Thys et al. 2019.
"""

import itertools

import torch
from torch import Tensor

LEVELS = (0.1, 0.5, 0.85)
"""Of each channel, as shares of the data's range: ink is not black, and paper is not white. The published lists of
colours are measurements of one printer; these stand for any."""


def total_variation(patch: Tensor) -> Tensor:
    """The mean absolute difference of neighbouring pixels of a patch `[C, S, S]`."""
    return (patch.diff(dim=1).abs().sum() + patch.diff(dim=2).abs().sum()) / patch.numel()


def non_printability(patch: Tensor, low: float, high: float) -> Tensor:
    """The mean Euclidean distance of a patch's pixels `[C, S, S]` to the nearest printable colour."""
    shares = torch.tensor(list(itertools.product(LEVELS, repeat=len(patch))), device=patch.device)
    colours = low + (high - low) * shares
    pixels = patch.flatten(1).t()
    return torch.cdist(pixels, colours.to(patch.dtype), compute_mode="donot_use_mm_for_euclid_dist").amin(1).mean()
