"""Several attacks on the same samples to the worst outcome of each sample, as far as it is the same in every task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robustbench_lab.contracts import Measured
from robustbench_lab.records import Outcomes


def broken_by_any(outcomes: Sequence[Outcomes], columns: Measured) -> Outcomes:
    """A sample is robust if no attack broke it; its distance is the smallest that did. columns: the task's own."""
    distances = np.stack([one.distance for one in outcomes])
    nearest = np.where(np.isnan(distances), np.inf, distances).min(axis=0)
    return Outcomes(
        clean_correct=np.logical_and.reduce([one.clean_correct for one in outcomes]),
        robust=np.logical_and.reduce([one.robust for one in outcomes]),
        distance=np.where(np.isinf(nearest), np.nan, nearest).astype(np.float32),
        columns=columns,
    )
