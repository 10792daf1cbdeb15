"""Networks from ONNX files: classifiers, segmentation networks and forecasters, detectors as black boxes."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """A user's own ONNX files."""
    return [
        ModelSpec(
            name="onnx",
            factory="rbl_onnx.onnx_model:onnx_model",
            summary="an ONNX network: onnx(path='net.onnx', mean=[0.49, 0.48, 0.45], std=[0.25, 0.24, 0.26])",
            tasks=("classification", "segmentation"),
            version=wrapper_version("1", "onnx2torch"),
            requires=("onnx", "onnx2torch"),
            extra="onnx",
        ),
        ModelSpec(
            name="onnx",
            factory="rbl_onnx.onnx_forecaster:onnx_forecaster",
            summary="a forecaster's ONNX file: onnx(path='net.onnx', layout='NLC', output='NHC')",
            tasks=("forecasting",),
            version=wrapper_version("1", "onnx2torch"),
            requires=("onnx", "onnx2torch", "onnxruntime"),
            extra="onnx",
        ),
        ModelSpec(
            name="onnx-detector",
            factory="rbl_onnx.onnx_detector:onnx_detector",
            summary="a detector's ONNX file, as a black box: onnx-detector(path='net.onnx', classes=91)",
            tasks=("detection",),
            version=wrapper_version("1", "onnxruntime"),
            requires=("onnx", "onnx2torch", "onnxruntime"),
            extra="onnx",
        ),
    ]
