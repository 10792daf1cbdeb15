"""Attacks of the Adversarial Robustness Toolbox, run through the same audit and counted by the same counter.

Not offered: GeoDA, which in ART 1.20 calls `numpy.mat` (gone since numpy 2) and writes to the working folder.
"""

from collections.abc import Callable, Mapping
from typing import Any

from robustbench_lab import hookimpl
from robustbench_lab.contracts import Access, AttackSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version

Passes = Callable[[Mapping[str, Any]], tuple[int, int]]


@hookimpl
def rbl_attacks() -> list[AttackSpec]:
    """ART's attacks under their own class names."""
    within_budget, nearest = "rbl_art.evasion_attacks", "rbl_art.minimum_norm_attacks"
    norms = ("linf", "l2", "l1")
    return [
        _spec("ProjectedGradientDescent", f"{within_budget}:projected_gradient_descent", norms, passes=_pgd_passes),
        _spec("AutoProjectedGradientDescent", f"{within_budget}:auto_projected_gradient_descent", norms),
        _spec("SquareAttack", f"{within_budget}:square_attack", ("linf",), access=Access.SCORES),
        _spec("SimBA", f"{nearest}:simba", ("l2",), access=Access.SCORES, minimum_norm=True),
        _spec("HopSkipJump", f"{nearest}:hop_skip_jump", ("linf", "l2"), access=Access.DECISIONS, minimum_norm=True),
        _spec("BoundaryAttack", f"{nearest}:boundary_attack", ("l2",), access=Access.DECISIONS, minimum_norm=True),
        _spec("SignOPTAttack", f"{nearest}:sign_opt_attack", ("l2",), access=Access.DECISIONS, minimum_norm=True),
    ]


def _spec(
    name: str,
    factory: str,
    norms: tuple[str, ...],
    *,
    access: Access = Access.GRADIENTS,
    minimum_norm: bool = False,
    passes: Passes | None = None,
) -> AttackSpec:
    return AttackSpec(
        name=f"art:{name}",
        factory=factory,
        summary=f"ART's {name}",
        access=access,
        threat_models=norms,
        minimum_norm=minimum_norm,
        version=wrapper_version("1", "adversarial-robustness-toolbox"),
        requires=("art",),
        sample_deterministic=False,
        estimate_passes=passes,
    )


def _pgd_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    restarts = max(1, params["num_random_init"])
    passes: int = params["max_iter"] * restarts + restarts
    return passes, passes
