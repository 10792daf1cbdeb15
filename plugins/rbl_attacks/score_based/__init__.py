"""Attacks that see scores or decisions, and no gradient."""

from rbl_attacks.norms import NORM_BALLS
from robustbench_lab.contracts import Access, AttackSpec

SPECS = [
    AttackSpec(
        name="noise",
        factory="rbl_attacks.score_based.noise:noise",
        summary="random points of the threat model: the baseline every attack must beat",
        access=Access.DECISIONS,
        tasks=(),
        threat_models=(*NORM_BALLS, "l0"),
        baseline=True,
        version="1",
        estimate_passes=lambda params: (params["repeats"], 0),
    ),
]
