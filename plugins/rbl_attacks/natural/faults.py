"""Faults of sensors, clocks and transmission as a worst case over kinds: for series what corruptions are for images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from rbl_attacks.natural.fault_kinds import KINDS, with_fault
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell
from robustbench_lab.threat_models.series_regions.faulty import Faulty

Kind = Literal[
    "all",
    "gaussian_noise",
    "spikes",
    "dropout",
    "stuck",
    "missing_blocks",
    "drift",
    "level_shift",
    "time_shift",
    "saturation",
]
Kinds = Annotated[
    list[Kind], BeforeValidator(lambda value: [value] if isinstance(value, str) else value), Field(min_length=1)
]


def faults(problem: AttackProblem, *, kinds: Kinds = ("all",)) -> None:  # type: ignore[assignment]
    """Each history with each kind of fault, at the severity that is the budget; the one that harms most counts.

    With a single kind the error is the usual error under that fault, where it is larger than without.

    kinds: one, a list, or `all` nine: see fault_kinds.py.
    """
    region = problem.region
    if not isinstance(region, Faulty):
        raise SkipCell("faults are for the threat model 'fault'")
    history = problem.clean[:, : region.history]
    for kind in KINDS if "all" in kinds else kinds:
        x = problem.clean.clone()
        x[:, : region.history] = with_fault(history, region.unit, kind, int(problem.eps), problem)
        # Projected, so that what was not measured stays as it is.
        problem.submit(problem.project(x))
