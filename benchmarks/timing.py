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


def paired(bare: Callable[[], Any], ready: Callable[[], Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of both, medians of rounds taken in turn, and the median of the ratios within a round.

    ready: makes the work that is timed beside the bare one; its own time does not count.
    """
    bare(), ready()()  # once, to warm up
    times = [(seconds(bare), seconds(ready())) for _ in range(rounds)]
    bares, works = zip(*times, strict=True)
    ratio = statistics.median(work / base for base, work in times)
    return {"bare": statistics.median(bares), "steps": statistics.median(works), "ratio": ratio}


def medians(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Each once a round, in turn."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            times[name].append(seconds(work))
    return {name: statistics.median(ones) for name, ones in times.items()}
