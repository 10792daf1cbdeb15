"""The 15 common corruptions of Hendrycks & Dietterich (ICLR 2019, https://arxiv.org/abs/1903.12261).

Written anew from the paper and the constants of the scripts that made CIFAR-10-C and ImageNet-C
(https://github.com/hendrycks/robustness, make_cifar_c.py and make_imagenet_c.py). The libraries that offer them need
OpenCV, numba and scikit-image, draw from global random state, take one image at a time, and know ImageNet's constants
only. What differs from the published data:

- the random numbers are each sample's own, so that results repeat, and are the same at all severities of a kind;
- `frost` draws its ice crystals instead of cropping photographs: its numbers do not compare with the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from rbl_attacks.natural.corruption_kinds import blur, digital, noise, weather


class Numbers(Protocol):
    """Where random numbers come from: `[N, *shape]`, the same for a sample whatever else is in the batch."""

    def uniform(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor: ...
    def normal(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Corruption:
    """One kind."""

    apply: Callable[[Tensor, Any, Numbers], Tensor]
    """Images `[N, C, H, W]` in 0..1, a level and random numbers to corrupted images, not yet clipped."""
    small: tuple[Any, ...]
    """The levels of the five severities in CIFAR-10-C."""
    large: tuple[Any, ...]
    """Those in ImageNet-C."""


SMALL_SIDE = 64
"""Images whose shorter side is at most this have the levels of CIFAR-10-C."""

KINDS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(
        noise.gaussian,
        small=(0.04, 0.06, 0.08, 0.09, 0.10),
        large=(0.08, 0.12, 0.18, 0.26, 0.38),
    ),
    "shot_noise": Corruption(
        noise.shot,
        small=(500, 250, 100, 75, 50),
        large=(60, 25, 12, 5, 3),
    ),
    "impulse_noise": Corruption(
        noise.impulse,
        small=(0.01, 0.02, 0.03, 0.05, 0.07),
        large=(0.03, 0.06, 0.09, 0.17, 0.27),
    ),
    "defocus_blur": Corruption(
        blur.defocus,
        small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": Corruption(
        blur.glass,
        small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(
        blur.motion,
        small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": Corruption(
        blur.zoom,
        small=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        large=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "snow": Corruption(
        weather.snow,
        small=(
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        large=(
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": Corruption(
        weather.frost,
        small=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        large=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": Corruption(
        weather.fog,
        small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Corruption(
        digital.brightness,
        small=(0.05, 0.1, 0.15, 0.2, 0.3),
        large=(0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    "contrast": Corruption(
        digital.contrast,
        small=(0.75, 0.5, 0.4, 0.3, 0.15),
        large=(0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    "elastic_transform": Corruption(
        digital.elastic,
        small=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        # In ImageNet-C shares of 244 pixels, on images of 224.
        large=tuple(
            tuple(share * 244 / 224 for share in level)
            for level in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
    ),
    "pixelate": Corruption(
        digital.pixelate,
        small=(0.95, 0.9, 0.85, 0.75, 0.65),
        large=(0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    "jpeg_compression": Corruption(
        digital.jpeg,
        small=(80, 65, 58, 50, 40),
        large=(25, 18, 15, 10, 7),
    ),
}


def corrupted(images: Tensor, kind: str, severity: int, numbers: Numbers) -> Tensor:
    """Images `[N, C, H, W]` in 0..1, corrupted, clipped to 0..1 and rounded to 8 bits as stored images are.

    kind: a name of `KINDS`. severity: 1 to 5.
    """
    corruption = KINDS[kind]
    levels = corruption.small if min(images.shape[2:]) <= SMALL_SIDE else corruption.large
    made = corruption.apply(images, levels[severity - 1], numbers)
    return made.clamp(0, 1).mul_(255).round_().div_(255)
