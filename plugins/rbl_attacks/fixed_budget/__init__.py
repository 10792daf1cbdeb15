"""Attacks that search for an input within a budget, along gradients."""

from collections.abc import Mapping
from typing import Any

from rbl_attacks.norms import NORM_BALLS
from robustbench_lab.contracts import AttackSpec


def _pgd_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    steps = params["restarts"] * params["steps"]
    return steps + params["restarts"], steps


SPECS = [
    AttackSpec(
        name="fgsm",
        factory="rbl_attacks.fixed_budget.fgsm:fgsm",
        summary="one step along the steepest direction (Goodfellow et al. 2015)",
        tasks=(),
        threat_models=NORM_BALLS,
        version="1",
        estimate_passes=lambda _params: (2, 1),
    ),
    AttackSpec(
        name="pgd",
        factory="rbl_attacks.fixed_budget.pgd:pgd",
        summary="projected gradient ascent with restarts and momentum (Madry et al. 2018)",
        tasks=(),
        threat_models=NORM_BALLS,
        version="1",
        estimate_passes=_pgd_passes,
    ),
]
