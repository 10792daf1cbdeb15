"""Several attacks in turn, as one evaluation."""

from collections.abc import Mapping
from typing import Any

from rbl_attacks.norms import NORM_BALLS
from robustbench_lab.contracts import AttackSpec

_AUTOATTACK_PASSES = {"standard": (7833, 1920), "plus": (9722, 7800), "rand": (203, 200)}
"""Forward and backward passes of each version at most (standard: in l1), with ten classes."""


def _autoattack_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    return _AUTOATTACK_PASSES[params["version"]]


def _swift_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    """For a sample that stays in the race to its end, with ten classes, on a model that hides its gradients."""
    rounds = 4 + 16 * params["effort"]
    backward = 60 + 10 + 1200 + 1600 * (params["effort"] - 1)
    without_gradients = 100 + 500 + 5000
    return backward + rounds + 1 + without_gradients, backward


def _sea_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    """Where APGD begins in larger balls, each of its three has two starts more."""
    return 4 * params["steps"] + 10, 4 * params["steps"] + 6


SPECS = [
    AttackSpec(
        name="autoattack",
        factory="rbl_attacks.ensembles.autoattack:autoattack",
        summary="APGD, FAB and Square with the official parameters: the field's number (Croce & Hein 2020)",
        threat_models=NORM_BALLS,
        version="1",
        estimate_passes=_autoattack_passes,
    ),
    AttackSpec(
        name="swift",
        factory="rbl_attacks.ensembles.swift:swift",
        summary="a reliable number for a small part of AutoAttack's passes: a race for the samples near the boundary",
        threat_models=NORM_BALLS,
        version="4",
        estimate_passes=_swift_passes,
        compares_samples=True,
    ),
    AttackSpec(
        name="sea",
        factory="rbl_attacks.ensembles.sea:sea",
        summary="APGD on three losses for pixels, and SegPGD: the worst for each image (Croce et al. 2024)",
        tasks=("segmentation",),
        threat_models=NORM_BALLS,
        version="2",
        quick={"steps": 20},
        estimate_passes=_sea_passes,
    ),
]
