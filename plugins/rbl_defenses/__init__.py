"""Defenses that change the input before the model sees it. Attacks are adaptive: they go through the defense."""

from rbl_defenses import series
from robustbench_lab import hookimpl
from robustbench_lab.contracts import DefenseSpec, GradientKind

IMAGES = ("classification", "detection", "segmentation")
"""Tasks whose inputs are images in [0, 1]."""


@hookimpl
def rbl_defenses() -> list[DefenseSpec]:
    """First-party defenses."""
    return [
        DefenseSpec(
            name="bit-depth",
            factory="rbl_defenses.bit_depth:bit_depth",
            summary="rounds inputs to a few levels (Xu et al. 2018)",
            tasks=IMAGES,
            gradient=GradientKind.BPDA,
            version="1",
        ),
        DefenseSpec(
            name="jpeg",
            factory="rbl_defenses.jpeg:jpeg",
            summary="compresses images as JPEG (Dziugaite et al. 2016); gradients by a differentiable one",
            tasks=IMAGES,
            gradient=GradientKind.BPDA,
            version="2",
        ),
        DefenseSpec(
            name="median",
            factory="rbl_defenses.median:median",
            summary="median filter over a square window (Xu et al. 2018)",
            tasks=IMAGES,
            version="1",
        ),
        DefenseSpec(
            name="gaussian-noise",
            factory="rbl_defenses.gaussian_noise:gaussian_noise",
            summary="adds fresh noise at every forward pass (Cohen et al. 2019, without the certificate)",
            tasks=IMAGES,
            randomized=True,
            version="1",
        ),
        DefenseSpec(
            name="resize-pad",
            factory="rbl_defenses.resize_pad:resize_pad",
            summary="a random size and place on a black canvas at every forward pass (Xie et al. 2018)",
            tasks=("classification", "detection"),
            randomized=True,
            version="1",
        ),
        DefenseSpec(
            name="lgs",
            factory="rbl_defenses.lgs:lgs",
            summary="local gradients smoothing: darkens what changes fast all over a window (Naseer et al. 2019)",
            tasks=IMAGES,
            version="1",
        ),
        DefenseSpec(
            name="sac",
            factory="rbl_defenses.sac:sac",
            summary="segment and complete: blacks out what a small network takes for a patch (Liu et al. 2022)",
            tasks=IMAGES,
            gradient=GradientKind.BPDA,
            version="1",  # of the weights as well
        ),
        *series.SPECS,
    ]
