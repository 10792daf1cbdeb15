"""Datasets, image classifiers, detectors and segmentation networks of torchvision."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import DatasetSpec, ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_datasets() -> list[DatasetSpec]:
    """Small-image datasets of torchvision."""
    return [
        DatasetSpec(
            name="torchvision:",
            factory="rbl_torchvision.torchvision_dataset:torchvision_dataset",
            summary="CIFAR10, CIFAR100, MNIST, FashionMNIST, KMNIST, SVHN, STL10, USPS: torchvision:MNIST(root='data')",
            version="1",
            requires=("torchvision",),
        )
    ]


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """Image classifiers, detectors and segmentation networks: the task tells which of them a name must be."""
    return [
        ModelSpec(
            name="torchvision:",
            factory="rbl_torchvision.torchvision_model:torchvision_model",
            summary="any torchvision classifier: torchvision:resnet18(weights='resnet18.pth')",
            version=wrapper_version("2", "torchvision"),
            requires=("torchvision",),
        ),
        ModelSpec(
            name="torchvision:",
            factory="rbl_torchvision.torchvision_detector:torchvision_detector",
            summary="fasterrcnn_*, retinanet_*, fcos_*, ssd*: torchvision:fasterrcnn_resnet50_fpn(pretrained=True)",
            tasks=("detection",),
            version=wrapper_version("2", "torchvision"),
            requires=("torchvision",),
        ),
        ModelSpec(
            name="torchvision:",
            factory="rbl_torchvision.torchvision_segmenter:torchvision_segmenter",
            summary="fcn_*, deeplabv3_*, lraspp_*: torchvision:deeplabv3_resnet50(pretrained=True)",
            tasks=("segmentation",),
            version=wrapper_version("1", "torchvision"),
            requires=("torchvision",),
        ),
    ]
