"""How benchmarks take times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds(work: Callable[[], Any]) -> float:
    """Of the processor, since others share the machine."""
    began = time.process_time()
    work()
    return time.process_time() - began


def medians(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Each once a round, in turn."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            times[name].append(seconds(work))
    return {name: statistics.median(ones) for name, ones in times.items()}
