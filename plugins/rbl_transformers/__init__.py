"""Classifiers, detectors, segmentation networks and forecasters of Hugging Face's transformers."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """ViT; DETR and its kin; SegFormer; PatchTST, TimesFM: the task tells which a folder must hold."""
    return [
        ModelSpec(
            name="transformers:",
            factory="rbl_transformers.transformers_classifier:transformers_classifier",
            summary="ViT, Swin, ConvNeXt and others from a folder or the hub: transformers:google/vit-base-patch16-224",
            version=wrapper_version("1", "transformers"),
            requires=("transformers",),
            extra="transformers",
            names_folders=True,
        ),
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
            factory="rbl_transformers.transformers_segmenter:transformers_segmenter",
            summary="SegFormer, UPerNet, BEiT: transformers:nvidia/segformer-b0-finetuned-ade-512-512",
            tasks=("segmentation",),
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
