"""Attacks of the Adversarial Robustness Toolbox, run through the same audit and counted by the same counter."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import AttackSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version

_VERSION = wrapper_version("1", "adversarial-robustness-toolbox")


@hookimpl
def rbl_attacks() -> list[AttackSpec]:
    """ART's attacks under their own class names."""
    return [
        AttackSpec(
            name="art:ProjectedGradientDescent",
            factory="rbl_art.evasion_attacks:projected_gradient_descent",
            summary="ART's ProjectedGradientDescent",
            threat_models=("linf", "l2", "l1"),
            version=_VERSION,
            requires=("art",),
            sample_deterministic=False,
            estimate_passes=lambda params: (_art_forward(params["max_iter"], params["num_random_init"]),) * 2,
        ),
    ]


def _art_forward(steps: int, restarts: int) -> int:
    return steps * max(1, restarts) + max(1, restarts)
