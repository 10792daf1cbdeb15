"""Detectors and forecasters of Hugging Face's transformers."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """DETR and its kin; PatchTST, TimesFM and others: the task tells which of the two a folder must hold."""
    return [
        ModelSpec(
            name="transformers:",
            factory="rbl_transformers.transformers_detector:transformers_detector",
            summary="DETR and its kin, RT-DETR, YOLOS from a folder or the hub: transformers:facebook/detr-resnet-50",
            tasks=("detection",),
            version=wrapper_version("1", "transformers"),
            requires=("transformers",),
            extra="transformers",
            names_folders=True,
        ),
        ModelSpec(
            name="transformers:",
            factory="rbl_transformers.transformers_forecaster:transformers_forecaster",
            summary="PatchTST, TimesFM and others from a folder or the hub: transformers:models/patchtst",
            tasks=("forecasting",),
            version=wrapper_version("1", "transformers"),
            requires=("transformers",),
            extra="transformers",
            names_folders=True,
        ),
    ]
