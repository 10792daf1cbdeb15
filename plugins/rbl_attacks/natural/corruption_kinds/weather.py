"""Weather: snow, frost on the lens, fog."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rbl_attacks.natural.corruption_kinds.filters import moved, zoomed
from rbl_attacks.natural.corruption_kinds.plasma import plasma

if TYPE_CHECKING:
    from rbl_attacks.natural.corruption_kinds import Numbers

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
ICE = (0.82, 0.9, 1.0)
"""Red, green and blue of white ice, a little blue."""


def snow(x: Tensor, level: tuple[float, ...], numbers: Numbers) -> Tensor:
    """Falling flakes on a whitened image.

    level: mean and standard deviation of the noise that flakes are made of; their size; the threshold above which
    noise is a flake; radius and sigma of their motion blur; the share of the image that is not whitened.
    """
    mean, deviation, size, threshold, radius, sigma, kept = level
    noise = numbers.normal("snow", (1, *x.shape[2:])) * deviation + mean
    flakes = zoomed(noise, size)
    flakes = torch.where(flakes < threshold, 0, flakes).clamp_(0, 1)
    degrees = numbers.uniform("snow/direction", ()) * 90 - 135
    flakes = moved(flakes, int(radius), sigma, degrees)
    white = torch.maximum(x, _grey(x) * 1.5 + 0.5)
    return kept * x + (1 - kept) * white + flakes + flakes.rot90(2, (2, 3))


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)


def frost(x: Tensor, level: tuple[float, float], numbers: Numbers) -> Tensor:
    """`level[0]` of the image plus `level[1]` of ice crystals: the ridges of a fractal.

    A stand-in for the photographs that the published data are made with.
    """
    veins = 1 - (2 * plasma(x, 1.7, numbers, "frost") - 1).abs()
    ice = 0.25 + 0.75 * veins**2
    if x.shape[1] == 3:
        ice = ice * x.new_tensor(ICE)[:, None, None]
    return level[0] * x + level[1] * ice


def fog(x: Tensor, level: tuple[float, float], numbers: Numbers) -> Tensor:
    """`level[0]` of a plasma fractal of smoothness `level[1]` on top, and the whole darkened to the old maximum."""
    brightest = x.flatten(1).amax(1)[:, None, None, None]
    return (x + level[0] * plasma(x, level[1], numbers, "fog")) * brightest / (brightest + level[0])
