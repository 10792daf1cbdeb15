"""Networks from ONNX files, with gradients."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """A user's own ONNX file."""
    return [
        ModelSpec(
            name="onnx",
            factory="rbl_onnx.onnx_model:onnx_model",
            summary="an ONNX network: onnx(path='net.onnx', mean=[0.49, 0.48, 0.45], std=[0.25, 0.24, 0.26])",
            version=wrapper_version("1", "onnx2torch"),
            requires=("onnx", "onnx2torch"),
            extra="onnx",
        )
    ]
