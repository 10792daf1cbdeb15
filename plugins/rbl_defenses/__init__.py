"""Defenses that change the input before the model sees it. Attacks are adaptive: they go through the defense."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import DefenseSpec, GradientKind


@hookimpl
def rbl_defenses() -> list[DefenseSpec]:
    """First-party defenses."""
    return [
        DefenseSpec(
            name="bit-depth",
            factory="rbl_defenses.bit_depth:bit_depth",
            summary="rounds inputs to a few levels (Xu et al. 2018)",
            gradient=GradientKind.BPDA,
            version="1",
        ),
        DefenseSpec(
            name="jpeg",
            factory="rbl_defenses.jpeg:jpeg",
            summary="compresses images as JPEG (Dziugaite et al. 2016)",
            gradient=GradientKind.BPDA,
            version="1",
        ),
        DefenseSpec(
            name="median",
            factory="rbl_defenses.median:median",
            summary="median filter over a square window (Xu et al. 2018)",
            version="1",
        ),
        DefenseSpec(
            name="gaussian-noise",
            factory="rbl_defenses.gaussian_noise:gaussian_noise",
            summary="adds fresh noise at every forward pass (Cohen et al. 2019, without the certificate)",
            randomized=True,
            version="1",
        ),
    ]
