"""One perturbation or patch for all inputs."""

from collections.abc import Mapping
from typing import Any

from rbl_attacks.norms import BOUND_PATCHES
from robustbench_lab.contracts import AttackSpec


def _passes(params: Mapping[str, Any]) -> tuple[int, int]:
    steps = params["steps"] * params["folds"]
    return steps + 1, steps


SPECS: list[AttackSpec] = [
    AttackSpec(
        name="universal",
        factory="rbl_attacks.universal.universal:universal",
        summary="one perturbation for all inputs, by gradient ascent (Moosavi-Dezfooli 2017, Shafahi et al. 2020)",
        tasks=(),
        threat_models=("linf", "l2", "series"),
        joint=True,
        quick={"steps": 50},
        version="2",
        estimate_passes=_passes,
    ),
    AttackSpec(
        name="timestamp-universal",
        factory="rbl_attacks.universal.timestamp_universal:timestamp_universal",
        summary="one change of the recorded series for all windows that see it, by gradient ascent (TUAP 2026)",
        tasks=("forecasting",),
        threat_models=("series", "recorded-series"),
        joint=True,
        quick={"steps": 20},
        estimate_passes=lambda params: (params["steps"] + 1, params["steps"]),
    ),
    AttackSpec(
        name="adversarial-patch",
        factory="rbl_attacks.universal.adversarial_patch:adversarial_patch",
        summary="one patch for all images, in one place or anywhere, or on all objects (Brown et al. 2017)",
        tasks=("classification", "detection", "segmentation"),
        threat_models=("patch", *BOUND_PATCHES),
        joint=True,
        quick={"steps": 50},
        version="2",
        estimate_passes=_passes,
    ),
]
