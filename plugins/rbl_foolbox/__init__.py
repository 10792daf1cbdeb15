"""Attacks of Foolbox (Rauber et al. 2020), run through the same audit and counted by the same counter."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import AttackSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version

_ATTACKS = {
    "LinfPGD": ("linf", "linf_pgd"),
    "L2PGD": ("l2", "l2_pgd"),
    "L1PGD": ("l1", "l1_pgd"),
    "LinfFastGradientAttack": ("linf", "linf_fast_gradient"),
    "L2FastGradientAttack": ("l2", "l2_fast_gradient"),
}
"""Class name in `foolbox.attacks` to its norm and our function. Each is run by a test of this repository."""


@hookimpl
def rbl_attacks() -> list[AttackSpec]:
    """Foolbox's attacks under their own class names."""
    return [
        AttackSpec(
            name=f"foolbox:{name}",
            factory=f"rbl_foolbox.gradient_attacks:{function}",
            summary=f"Foolbox's {name}, with Foolbox's own defaults",
            threat_models=(norm,),
            version=wrapper_version("1", "foolbox"),
            requires=("foolbox",),
            sample_deterministic=False,
            estimate_passes=lambda params: (params.get("steps", 1) + 1, params.get("steps", 1)),
        )
        for name, (norm, function) in _ATTACKS.items()
    ]
