"""What stored cells took: the scheduler expects the like of like cells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CellTiming:
    """Stored cells that are alike, together. Components are given by their labels."""

    model: str
    defense: str
    dataset: str
    attack: str
    threat_model: str
    device: str
    samples: int
    """Of all these cells."""
    passes: float
    """Forward and backward, summed over samples."""
    seconds: float
