"""Attacks that search for an input within a budget, along gradients."""

from collections.abc import Mapping
from typing import Any

from rbl_attacks.norms import BOUND_PATCHES, GRADIENT_STEPS, NORM_BALLS
from robustbench_lab.contracts import AttackSpec


def _pgd_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    steps = params["restarts"] * params["steps"]
    return steps + params["restarts"], steps


def _apgd_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    targeted = params["loss"] is not None and params["loss"].startswith("targeted")
    searches = params["restarts"] * (params["targets"] if targeted else 1)
    # In l1 a search is three, each with a start of its own.
    return (params["steps"] + 3) * searches + targeted, (params["steps"] + 2) * searches


SPECS = [
    AttackSpec(
        name="fgsm",
        factory="rbl_attacks.fixed_budget.fgsm:fgsm",
        summary="one step along the steepest direction (Goodfellow et al. 2015)",
        tasks=(),
        threat_models=(*GRADIENT_STEPS, "patch"),
        version="1",
        estimate_passes=lambda _params: (2, 1),
    ),
    AttackSpec(
        name="pgd",
        factory="rbl_attacks.fixed_budget.pgd:pgd",
        summary="projected gradient ascent with restarts and momentum (Madry et al. 2018)",
        tasks=(),
        threat_models=GRADIENT_STEPS,
        version="1",
        estimate_passes=_pgd_passes,
    ),
    AttackSpec(
        name="apgd",
        factory="rbl_attacks.fixed_budget.apgd:apgd",
        summary="projected gradient ascent that sets its own step size (Croce & Hein 2020)",
        tasks=(),
        threat_models=(*NORM_BALLS, "series"),
        version="1",
        estimate_passes=_apgd_passes,
    ),
    AttackSpec(
        name="segpgd",
        factory="rbl_attacks.fixed_budget.segpgd:segpgd",
        summary="PGD on pixels that are still right first, then on all of them (Gu et al. 2022)",
        tasks=("segmentation",),
        threat_models=(*NORM_BALLS, "mask"),
        version="1",
        quick={"steps": 20},
        estimate_passes=_pgd_passes,
    ),
    AttackSpec(
        name="patch-pgd",
        factory="rbl_attacks.fixed_budget.patch_pgd:patch_pgd",
        summary="a patch for each input: projected gradient ascent at the best place and at random ones",
        tasks=(),
        threat_models=("patch", *BOUND_PATCHES),
        version="1",
        estimate_passes=_pgd_passes,
    ),
]
