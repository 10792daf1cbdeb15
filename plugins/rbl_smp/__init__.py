"""U-Nets and their kin of segmentation-models-pytorch."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """Every architecture of the library, on any of its encoders."""
    return [
        ModelSpec(
            name="smp:",
            factory="rbl_smp.smp_model:smp_model",
            summary="U-Nets and others: smp:unet(encoder='resnet34', classes=21, weights='unet.safetensors')",
            tasks=("segmentation",),
            version=wrapper_version("1", "segmentation-models-pytorch"),
            requires=("segmentation_models_pytorch",),
            extra="smp",
        )
    ]
