"""MTCNN, a face detector whose weights ship in the package facenet-pytorch."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """One detector of one class."""
    return [
        ModelSpec(
            name="facenet:",
            factory="rbl_facenet.facenet_detector:facenet_detector",
            summary="MTCNN, a pretrained face detector: facenet:mtcnn",
            tasks=("detection",),
            version=wrapper_version("1", "facenet-pytorch"),
            requires=("facenet_pytorch",),
            install="pip install --no-deps facenet-pytorch",  # it asks for an old torch, and runs with any
        )
    ]
