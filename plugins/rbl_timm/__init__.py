"""Image classifiers of timm (PyTorch Image Models)."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """Every architecture that timm knows."""
    return [
        ModelSpec(
            name="timm:",
            factory="rbl_timm.timm_model:timm_model",
            summary="any timm architecture: timm:resnet50(weights='resnet50.safetensors')",
            version=wrapper_version("1", "timm"),
            requires=("timm",),
        )
    ]
