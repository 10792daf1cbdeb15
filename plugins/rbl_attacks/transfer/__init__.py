"""Gradient attacks whose results carry over to models that they never saw.

To make inputs for another model, run them with the objective `untargeted(stop_on_success=False)`: they then take all
their steps, and the most damaging iterate is kept. By default they stop where the model they climb is first fooled.
"""

from collections.abc import Mapping
from typing import Any

from robustbench_lab.contracts import AttackSpec

NORMS = ("linf", "l2", "series")


def _vmifgsm_passes(params: Mapping[str, Any]) -> tuple[int, int]:
    gradients: int = params["steps"] + (params["steps"] - 1) * params["neighbours"]
    return gradients + 1, gradients


SPECS = [
    AttackSpec(
        name="mim",
        factory="rbl_attacks.transfer.mim:mim",
        summary="MI-FGSM: steps along the accumulated gradient (Dong et al. 2018)",
        tasks=(),
        threat_models=NORMS,
        version="2",
        estimate_passes=lambda params: (params["steps"] + 1, params["steps"]),
    ),
    AttackSpec(
        name="nifgsm",
        factory="rbl_attacks.transfer.nifgsm:nifgsm",
        summary="NI-FGSM: Nesterov momentum; with scales=5 SI-NI-FGSM (Lin et al. 2020)",
        tasks=(),
        threat_models=NORMS,
        version="1",
        estimate_passes=lambda params: (params["steps"] * params["scales"] + 1, params["steps"] * params["scales"]),
    ),
    AttackSpec(
        name="difgsm",
        factory="rbl_attacks.transfer.difgsm:difgsm",
        summary="DI2-FGSM: gradients at randomly shrunk and padded images (Xie et al. 2019)",
        tasks=(),
        threat_models=("linf", "l2"),
        version="1",
        estimate_passes=lambda params: (params["steps"] + 1, params["steps"]),
    ),
    AttackSpec(
        name="vmifgsm",
        factory="rbl_attacks.transfer.vmifgsm:vmifgsm",
        summary="VMI-FGSM: momentum corrected by the gradient's variance around an iterate (Wang & He 2021)",
        tasks=(),
        threat_models=NORMS,
        version="1",
        estimate_passes=_vmifgsm_passes,
    ),
]
