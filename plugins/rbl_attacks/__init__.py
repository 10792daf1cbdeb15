"""The attacks of robustbench-lab: one algorithm a file, for every task and threat model it makes sense for."""

from collections.abc import Mapping
from typing import Any

from robustbench_lab import hookimpl
from robustbench_lab.contracts import Access, AttackSpec

NORM_BALLS = ("linf", "l2", "l1")


def _pgd_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    steps = params["restarts"] * params["steps"]
    return steps + params["restarts"], steps


@hookimpl
def rbl_attacks() -> list[AttackSpec]:
    """First-party attacks."""
    return [
        AttackSpec(
            name="fgsm",
            factory="rbl_attacks.fgsm:fgsm",
            summary="one step along the steepest direction (Goodfellow et al. 2015)",
            tasks=(),
            threat_models=NORM_BALLS,
            version="1",
            estimate_passes=lambda _params: (2, 1),
        ),
        AttackSpec(
            name="pgd",
            factory="rbl_attacks.pgd:pgd",
            summary="projected gradient ascent with restarts and momentum (Madry et al. 2018)",
            tasks=(),
            threat_models=NORM_BALLS,
            version="1",
            estimate_passes=_pgd_passes,
        ),
        AttackSpec(
            name="noise",
            factory="rbl_attacks.noise:noise",
            summary="random points of the threat model: the baseline every attack must beat",
            access=Access.DECISIONS,
            tasks=(),
            threat_models=NORM_BALLS,
            baseline=True,
            version="1",
            estimate_passes=lambda params: (params["repeats"], 0),
        ),
    ]
