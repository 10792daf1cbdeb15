"""Attacks that search for the nearest adversarial input."""

from collections.abc import Mapping
from typing import Any

from rbl_attacks.norms import NORM_BALLS
from robustbench_lab.contracts import AttackSpec

_CLASSES = 10
"""Taken as the number of classes where an attack's passes depend on it: parameters are all that an estimate has."""


def _fab_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    targets = params["targets"]
    searches = params["restarts"] * (targets or 1)
    gradients = _CLASSES - 1 if targets is None else 1
    forward = 2 * params["steps"] * searches + 1 + (params["final_search"] + 2 if params["final_search"] else 0)
    return forward, gradients * params["steps"] * searches


def _ead_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    searches = min(params["searches"], 1 + params["around"])
    return searches * (params["steps"] + 1) + 1 + params["final_search"], searches * params["steps"] + 1


SPECS: list[AttackSpec] = [
    AttackSpec(
        name="fab",
        factory="rbl_attacks.minimum_norm.fab:fab",
        summary="fast adaptive boundary attack: along the boundary towards the input (Croce & Hein 2020)",
        threat_models=NORM_BALLS,
        minimum_norm=True,
        version="1",
        estimate_passes=_fab_passes,
    ),
    AttackSpec(
        name="fab-t",
        factory="rbl_attacks.minimum_norm.fab:fab_t",
        summary="fast adaptive boundary attack towards the nine most likely classes in turn (Croce & Hein 2020)",
        threat_models=NORM_BALLS,
        minimum_norm=True,
        version="1",
        estimate_passes=_fab_passes,
    ),
    AttackSpec(
        name="deepfool",
        factory="rbl_attacks.minimum_norm.deepfool:deepfool",
        summary="shortest steps to the nearest linearised boundary (Moosavi-Dezfooli et al. 2016)",
        threat_models=("linf", "l2"),
        minimum_norm=True,
        version="1",
        estimate_passes=lambda params: (2 * params["steps"] + 1, (params["candidates"] - 1) * params["steps"]),
    ),
    AttackSpec(
        name="fmn",
        factory="rbl_attacks.minimum_norm.fmn:fmn",
        summary="fast minimum-norm attack: a ball that follows the boundary (Pintor et al. 2021)",
        threat_models=("linf", "l2", "l1", "l0"),
        minimum_norm=True,
        version="1",
        estimate_passes=lambda params: (params["steps"] + 1, params["steps"]),
    ),
    AttackSpec(
        name="ddn",
        factory="rbl_attacks.minimum_norm.ddn:ddn",
        summary="decoupled direction and norm: a sphere that follows the boundary (Rony et al. 2019)",
        tasks=(),
        threat_models=("l2",),
        minimum_norm=True,
        version="1",
        estimate_passes=lambda params: (params["steps"] + 1, params["steps"]),
    ),
    AttackSpec(
        name="cw",
        factory="rbl_attacks.minimum_norm.cw:cw",
        summary="distance plus missing margin, minimised by Adam (Carlini & Wagner 2017)",
        threat_models=("l2",),
        minimum_norm=True,
        quick={"steps": 50, "binary_search_steps": 3},
        version="2",
        estimate_passes=lambda params: 2 * (params["binary_search_steps"] * params["steps"],),
    ),
    AttackSpec(
        name="sigma-zero",
        factory="rbl_attacks.minimum_norm.sigma_zero:sigma_zero",
        summary="a smooth count of the changed values, with a threshold that follows success (Cinà et al. 2025)",
        threat_models=("l0",),
        minimum_norm=True,
        quick={"steps": 100},
        version="1",
        estimate_passes=lambda params: (params["steps"] + 1, params["steps"]),
    ),
    AttackSpec(
        name="ead",
        factory="rbl_attacks.minimum_norm.ead:ead",
        summary="elastic-net attack: l1 and l2 at once by shrinkage-thresholding (Chen et al. 2018)",
        threat_models=("l1",),
        minimum_norm=True,
        quick={"searches": 3, "steps": 50},
        version="3",
        estimate_passes=_ead_passes,
    ),
    AttackSpec(
        name="pdpgd",
        factory="rbl_attacks.minimum_norm.pdpgd:pdpgd",
        summary="primal-dual proximal gradient descent, in every norm (Matyasko & Chau 2021)",
        threat_models=("linf", "l2", "l1", "l0"),
        minimum_norm=True,
        quick={"steps": 100},
        version="2",
        estimate_passes=lambda params: (params["steps"] + 1 + params["final_search"], params["steps"]),
    ),
    AttackSpec(
        name="jsma",
        factory="rbl_attacks.minimum_norm.jsma:jsma",
        summary="the two values of largest saliency to their bounds, step after step (Papernot et al. 2016)",
        threat_models=("l0",),
        minimum_norm=True,
        version="1",
        estimate_passes=lambda params: (params["steps"] + 1, params["steps"]),
    ),
    AttackSpec(
        name="vfga",
        factory="rbl_attacks.minimum_norm.vfga:vfga",
        summary="one more value in each step, by a vote over random sizes (Hajri et al. 2022)",
        threat_models=("l0",),
        minimum_norm=True,
        version="1",
        estimate_passes=lambda params: ((2 * params["samples"] + 1) * params["steps"], params["steps"]),
    ),
]
