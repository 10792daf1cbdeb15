"""Changes that happen without an adversary: rotations, shifts, weather, noise, compression, faults of sensors."""

from collections.abc import Mapping
from typing import Any

from robustbench_lab.contracts import Access, AttackSpec


def _kinds(params: Mapping[str, Any]) -> tuple[int, int]:
    kinds = params["kinds"]
    return (15 if "all" in kinds else len(kinds)), 0


def _fault_kinds(params: Mapping[str, Any]) -> tuple[int, int]:
    kinds = params["kinds"]
    return (9 if "all" in kinds else len(kinds)), 0


def _places(params: Mapping[str, Any]) -> tuple[int, int]:
    grid = params["rotations"] * params["translations"] ** 2
    return (grid if params["search"] == "grid" else params["tries"]), 0


SPECS: list[AttackSpec] = [
    AttackSpec(
        name="corruptions",
        factory="rbl_attacks.natural.corruptions:corruptions",
        summary="15 common corruptions, the worst of those named (Hendrycks & Dietterich 2019)",
        access=Access.DECISIONS,
        tasks=(),
        threat_models=("corruption",),
        version="1",
        estimate_passes=_kinds,
    ),
    AttackSpec(
        name="faults",
        factory="rbl_attacks.natural.faults:faults",
        summary="9 faults of sensors, clocks and transmission, the worst of those named",
        access=Access.DECISIONS,
        tasks=("forecasting",),
        threat_models=("fault",),
        version="1",
        estimate_passes=_fault_kinds,
    ),
    AttackSpec(
        name="spatial",
        factory="rbl_attacks.natural.spatial:spatial",
        summary="rotations and shifts by grid search (Engstrom et al. 2019)",
        access=Access.DECISIONS,
        threat_models=("spatial",),
        version="1",
        estimate_passes=_places,
    ),
]
