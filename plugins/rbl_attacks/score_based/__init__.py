"""Attacks that see scores or decisions, and no gradient."""

from collections.abc import Mapping
from typing import Any

from rbl_attacks.norms import GRADIENT_STEPS, NORM_BALLS
from robustbench_lab.contracts import Access, AttackSpec


def _queries(params: Mapping[str, Any]) -> tuple[int, int]:
    return params["queries"], 0


SPECS = [
    AttackSpec(
        name="noise",
        factory="rbl_attacks.score_based.noise:noise",
        summary="random points of the threat model: the baseline every attack must beat",
        access=Access.DECISIONS,
        tasks=(),
        threat_models=(*GRADIENT_STEPS, "l0", "patch", "spatial"),
        baseline=True,
        version="1",
        estimate_passes=lambda params: (params["repeats"], 0),
    ),
    AttackSpec(
        name="square",
        factory="rbl_attacks.score_based.square:square",
        summary="random search over squares of pixels (Andriushchenko et al. 2020)",
        access=Access.SCORES,
        threat_models=NORM_BALLS,
        quick={"queries": 200},
        version="2",
        estimate_passes=lambda params: (params["restarts"] * params["queries"], 0),
    ),
    AttackSpec(
        name="square",
        factory="rbl_attacks.score_based.square:square_on_sets",
        summary="random search over squares of pixels, or stretches of steps (Andriushchenko et al. 2020)",
        access=Access.SCORES,
        tasks=("detection", "segmentation", "forecasting"),
        threat_models=(*NORM_BALLS, "series"),
        quick={"queries": 200},
        version="2",
        estimate_passes=lambda params: (params["restarts"] * params["queries"], 0),
    ),
    AttackSpec(
        name="nes",
        factory="rbl_attacks.score_based.nes:nes",
        summary="PGD along gradients estimated from Gaussian directions (Ilyas et al. 2018)",
        access=Access.SCORES,
        tasks=(),
        threat_models=GRADIENT_STEPS,
        quick={"queries": 200},
        version="2",
        estimate_passes=_queries,
    ),
    AttackSpec(
        name="spsa",
        factory="rbl_attacks.score_based.spsa:spsa",
        summary="Adam along gradients estimated from random signs (Uesato et al. 2018)",
        access=Access.SCORES,
        tasks=(),
        threat_models=("linf", "l2", "series"),
        quick={"queries": 200},
        version="3",
        estimate_passes=_queries,
    ),
    AttackSpec(
        name="simba",
        factory="rbl_attacks.score_based.simba:simba",
        summary="one pixel or cosine wave at a time, kept if it pays (Guo et al. 2019)",
        access=Access.SCORES,
        tasks=(),
        threat_models=("linf", "l2", "series"),
        quick={"queries": 200},
        version="1",
        estimate_passes=_queries,
    ),
    AttackSpec(
        name="hopskipjump",
        factory="rbl_attacks.score_based.hopskipjump:hopskipjump",
        summary="decisions only: leaps along estimated normals of the decision boundary (Chen et al. 2020)",
        access=Access.DECISIONS,
        tasks=(),
        threat_models=("linf", "l2"),
        minimum_norm=True,
        version="1",
        estimate_passes=lambda params: (params["queries"], 0),
    ),
]
