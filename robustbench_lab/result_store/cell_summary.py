"""One line about a stored cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robustbench_lab.contracts import Estimate
from robustbench_lab.records import Status, Verdict


@dataclass(frozen=True)
class CellSummary:
    """A stored cell without its definition, findings and outcomes. Components are given by their labels."""

    cell_id: str
    status: Status
    reason: str | None
    task: str
    model: str
    defense: str
    dataset: str
    attack: str
    objective: str
    threat_model: str
    norm: str | None
    eps: float
    adversary: str
    seed: int
    samples: int
    """How many."""
    metrics: Mapping[str, Estimate]
    forward_per_sample: float | None
    backward_per_sample: float | None
    wall_seconds: float
    verdict: Verdict | None
