"""The bootstrap over images, for metrics that are no mean over them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.contracts import Estimate
from robustbench_lab.statistics import percentile_interval

RESAMPLES = 1000


def resampled_counts(images: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """How often each of the images is drawn in each resample, `[R, N]`."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def estimated(value: float, replicates: NDArray[np.float64]) -> Estimate:
    """A value with its percentile interval, moved so that the replicates' mean lies on the value.

    Resampled images repeat, and repeated images have a higher mAP than fresh ones: the replicates lie around another
    place than the value does, which says nothing of how far it may be off.
    """
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return percentile_interval(value, known)
    one = percentile_interval(value, known - known.mean() + value)
    return Estimate(value, max(0.0, one.low), one.high)


def estimated_share(value: float, replicates: NDArray[np.float64]) -> Estimate:
    """The estimate of a share, which cannot be above 1."""
    one = estimated(value, replicates)
    return Estimate(one.value, one.low, min(one.high, 1.0))
