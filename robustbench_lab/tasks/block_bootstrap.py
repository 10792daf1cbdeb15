"""Resampled windows of a series: blocks of neighbours are drawn, for errors of neighbouring windows are alike."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000


def block_length(windows: int, overlapping: int = 1) -> int:
    """Windows in a block: the cube root of their number (Hall, Horowitz & Jing 1995), or as many as overlap."""
    return min(windows, max(overlapping, round(math.cbrt(windows))))


@lru_cache(maxsize=8)
def block_counts(windows: int, block: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """How often each of the windows is drawn in each resample, `[R, N]`; always the same for the same numbers.

    Moving blocks of consecutive windows, the last one cut so that each resample has N windows. They wrap around the
    end, so every window is drawn equally often on average: the circular block bootstrap (Politis & Romano 1992).
    """
    blocks = -(-windows // block)
    starts = np.random.default_rng(seed).integers(windows, size=(resamples, blocks, 1))
    drawn = ((starts + np.arange(block)) % windows).reshape(resamples, -1)[:, :windows]
    counts = np.zeros((resamples, windows), dtype=np.int64)
    np.add.at(counts, (np.arange(resamples)[:, None], drawn), 1)
    return counts
