"""Attacks of Foolbox (Rauber et al. 2020), run through the same audit and counted by the same counter.

Not offered: L2FMNAttack, whose projection in Foolbox 3.3.4 leaves its inputs as they are (three times DDN's distances),
and LInfFMNAttack, which hands back clean inputs on a linear model.
"""

from collections.abc import Callable, Mapping
from typing import Any

from robustbench_lab import hookimpl
from robustbench_lab.contracts import Access, AttackSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version

Passes = Callable[[Mapping[str, Any]], tuple[int, int]]

_WITHIN_BUDGET = {
    "LinfPGD": ("linf", "gradient_attacks:linf_pgd"),
    "L2PGD": ("l2", "gradient_attacks:l2_pgd"),
    "L1PGD": ("l1", "gradient_attacks:l1_pgd"),
    "LinfFastGradientAttack": ("linf", "gradient_attacks:linf_fast_gradient"),
    "L2FastGradientAttack": ("l2", "gradient_attacks:l2_fast_gradient"),
}
"""Class name in `foolbox.attacks` to its norm and our function. Each is run by a test of this repository."""

_NEAREST = {
    "L2DeepFoolAttack": ("l2", "minimum_norm_attacks:l2_deepfool"),
    "LinfDeepFoolAttack": ("linf", "minimum_norm_attacks:linf_deepfool"),
    "L2CarliniWagnerAttack": ("l2", "minimum_norm_attacks:l2_carlini_wagner"),
    "EADAttack": ("l1", "minimum_norm_attacks:ead"),
    "DDNAttack": ("l2", "minimum_norm_attacks:ddn"),
    "L0FMNAttack": ("l0", "minimum_norm_attacks:l0_fmn"),
    "L1FMNAttack": ("l1", "minimum_norm_attacks:l1_fmn"),
}
"""The same, for those that know no budget."""

_BOUNDARY_WALKS = {
    "L0BrendelBethgeAttack": ("l0", "minimum_norm_attacks:brendel_bethge"),
    "L1BrendelBethgeAttack": ("l1", "minimum_norm_attacks:brendel_bethge"),
    "L2BrendelBethgeAttack": ("l2", "minimum_norm_attacks:brendel_bethge"),
    "LinfinityBrendelBethgeAttack": ("linf", "minimum_norm_attacks:brendel_bethge"),
}
"""The same; these need numba as well."""

_BY_DECISIONS = {
    "HopSkipJumpAttack": (("linf", "l2"), "decision_attacks:hop_skip_jump"),
    "BoundaryAttack": (("l2",), "decision_attacks:boundary"),
}


@hookimpl
def rbl_attacks() -> list[AttackSpec]:
    """Foolbox's attacks under their own class names."""
    return [
        *(_spec(name, function, (norm,), passes=_passes) for name, (norm, function) in _WITHIN_BUDGET.items()),
        *(_spec(name, function, (norm,), minimum_norm=True) for name, (norm, function) in _NEAREST.items()),
        *(
            _spec(name, function, (norm,), minimum_norm=True, requires=("foolbox", "numba"))
            for name, (norm, function) in _BOUNDARY_WALKS.items()
        ),
        *(
            _spec(name, function, norms, access=Access.DECISIONS, minimum_norm=True)
            for name, (norms, function) in _BY_DECISIONS.items()
        ),
    ]


def _spec(
    name: str,
    function: str,
    norms: tuple[str, ...],
    *,
    access: Access = Access.GRADIENTS,
    minimum_norm: bool = False,
    passes: Passes | None = None,
    requires: tuple[str, ...] = ("foolbox",),
) -> AttackSpec:
    return AttackSpec(
        name=f"foolbox:{name}",
        factory=f"rbl_foolbox.{function}",
        summary=f"Foolbox's {name}, with Foolbox's own defaults",
        access=access,
        threat_models=norms,
        minimum_norm=minimum_norm,
        version=wrapper_version("1", "foolbox"),
        requires=requires,
        sample_deterministic=False,
        estimate_passes=passes,
    )


def _passes(params: Mapping[str, Any]) -> tuple[int, int]:
    steps = params.get("steps", 1)
    return steps + 1, steps
