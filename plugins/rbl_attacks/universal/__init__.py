"""One perturbation or patch for all inputs."""

from robustbench_lab.contracts import AttackSpec

SPECS: list[AttackSpec] = [
    AttackSpec(
        name="universal",
        factory="rbl_attacks.universal.universal:universal",
        summary="one perturbation for all inputs, by gradient ascent (Moosavi-Dezfooli 2017, Shafahi et al. 2020)",
        threat_models=("linf", "l2"),
        joint=True,
        version="1",
        estimate_passes=lambda params: (params["steps"] + 1, params["steps"]),
    ),
    AttackSpec(
        name="adversarial-patch",
        factory="rbl_attacks.universal.adversarial_patch:adversarial_patch",
        summary="one patch for all images, at random places (Brown et al. 2017)",
        threat_models=("patch",),
        joint=True,
        version="1",
        estimate_passes=lambda params: (params["steps"] + 1, params["steps"]),
    ),
]
