"""A cell's samples to work units: small enough that slots finish together, large enough that batches stay full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from robustbench_lab.records import Cell, WorkUnit

MOST_SAMPLES = 1000
MOST_BYTES = 256 << 20
"""Of a unit's inputs. An attack holds several tensors as large as these on the device."""
MOST_SECONDS = 600.0
"""What a killed run loses at most, in a slot, of attacks without stages."""
LEAST_SECONDS = 2.0
LEAST_SAMPLES = 32
"""Smaller units would cost more in loading and half-full batches than they gain."""
UNITS_A_SLOT = 24
"""Slots then wait 1/24 of the run for the last one at most, if costs are as expected."""

Range = tuple[int, int]
"""Start and stop."""


@dataclass(frozen=True)
class UnitSize:
    """How many samples units have at most."""

    sample_bytes: int
    """Of one sample's input; 0 where it is not known."""

    def fixed(self) -> int:
        """A size that nothing but the data decides: where the numbers depend on how samples are cut."""
        return max(1, min(MOST_SAMPLES, MOST_BYTES // max(1, self.sample_bytes)))

    def fair(self, seconds_per_sample: float, run_seconds: float, slots: int) -> int:
        """A size by which slots finish together. run_seconds: of the whole run on one slot."""
        share = run_seconds / slots / UNITS_A_SLOT if slots > 1 else MOST_SECONDS
        seconds = min(MOST_SECONDS, max(LEAST_SECONDS, share))
        samples = int(seconds / max(seconds_per_sample, 1e-9))
        return min(self.fixed(), max(LEAST_SAMPLES, samples))


def disjoint(ranges: Iterable[Range], free: Sequence[Range]) -> list[Range]:
    """Those of `ranges` that lie in free ones and overlap none taken before; sorted."""
    taken: list[Range] = []
    for start, stop in sorted(ranges):
        clear = not taken or start >= taken[-1][1]
        if clear and any(low <= start < stop <= high for low, high in free):
            taken.append((start, stop))
    return taken


def gaps(count: int, taken: Sequence[Range]) -> list[Range]:
    """What sorted, disjoint ranges leave of `count` samples."""
    edges = [0, *(edge for one in taken for edge in one), count]
    return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]


def cut(cell: Cell, free: Sequence[Range], size: int) -> list[WorkUnit]:
    """Units of `size` samples at most, nearly equal within each free range."""
    units = []
    for start, stop in free:
        pieces = -(-(stop - start) // size)
        edges = [start + (stop - start) * piece // pieces for piece in range(pieces + 1)]
        units += [WorkUnit(cell, *edge) for edge in pairwise(edges)]
    return units


def cut_on_grid(cell: Cell, size: int) -> list[WorkUnit]:
    """Units of exactly `size` samples, the last of the rest: the same however often a run is interrupted."""
    count = len(cell.samples.sample_ids)
    return [WorkUnit(cell, start, min(start + size, count)) for start in range(0, count, size)]
