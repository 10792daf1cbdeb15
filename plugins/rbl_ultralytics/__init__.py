"""YOLO detectors of ultralytics, whose licence is AGPL-3.0: it is imported only when one of them is used."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """YOLOv3 to YOLO26."""
    return [
        ModelSpec(
            name="ultralytics:",
            factory="rbl_ultralytics.ultralytics_detector:ultralytics_detector",
            summary="YOLO detectors (ultralytics, AGPL-3.0): ultralytics:yolo11n(weights='yolo11n.safetensors')",
            tasks=("detection",),
            version=wrapper_version("1", "ultralytics"),
            requires=("ultralytics",),
            extra="ultralytics",
        )
    ]
