"""An ONNX file as a differentiable torch module that takes batches."""

import math
from pathlib import Path
from typing import Literal

import onnx
import onnx2torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import uses_external_data
from torch import Tensor, fx, nn

from rbl_onnx.batching import batched, fix_constant_reshapes
from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.plugin_tools.local_files import ExistingFile, existing_file, listed
from robustbench_lab.plugin_tools.normalization import normalized

ImageLayout = Literal["NCHW", "NHWC"]
RE_EXPORT = (
    "export it with torch.onnx.export(..., opset_version=13, dynamo=False), or load the nn.Module with torch(...)"
)


def onnx_model(
    path: ExistingFile,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    input_shape: list[int] | None = None,
    layout: ImageLayout = "NCHW",
) -> nn.Module:
    """The network of an ONNX file, from images `[N, C, H, W]` in [0, 1] to its one output.

    mean, std: normalisation by channel, where the file does not hold its own. layout: the order of axes the network
    takes. input_shape: the shape of one sample, for a network that takes images in another form, such as `[784, 1]`.
    A network exported for a batch of 1 runs on batches. Raises UsageError.
    """
    source = f"onnx '{path}'"
    net, shape = differentiable(path, source, tuple(input_shape) if input_shape is not None else None)
    return normalized(_ImageInput(net, shape, layout, input_shape is not None, source), mean, std).eval()


def differentiable(
    path: str, source: str, sample_shape: tuple[int, ...] | None = None
) -> tuple[nn.Module, tuple[int, ...] | None]:
    """The network of a file, which takes batches, and the shape of one sample; None where nothing says it.

    sample_shape: instead of the file's. Raises UsageError.
    """
    proto = _read(existing_file(path, "onnx"), source)
    takes = _sample_shape(proto, source)
    shape = takes if sample_shape is None else sample_shape
    net: nn.Module = fix_constant_reshapes(_converted(proto, source))
    return (net, None) if shape is None else (batched(net, shape, source), shape)


class _ImageInput(nn.Module):
    """Brings images `[N, C, H, W]` into the form that the network takes."""

    def __init__(
        self, net: nn.Module, shape: tuple[int, ...] | None, layout: ImageLayout, may_reshape: bool, source: str
    ) -> None:
        super().__init__()
        self.net = net
        self.shape = shape
        self.layout = layout
        self.may_reshape = may_reshape
        self.source = source

    def forward(self, x: Tensor) -> Tensor:
        """UsageError where the images cannot become what the network takes."""
        if self.layout == "NHWC":
            x = x.permute(0, 2, 3, 1)
        if self.shape is not None and x.shape[1:] != self.shape:
            self._check(tuple(x.shape[1:]), self.shape)
            x = x.reshape(len(x), *self.shape)
        prediction: Tensor = self.net(x)
        return prediction

    def _check(self, given: tuple[int, ...], takes: tuple[int, ...]) -> None:
        mismatch = f"{self.source} takes {_name(takes)} a sample, the data gives {_name(given)}"
        if math.prod(given) != math.prod(takes):
            raise UsageError(f"{mismatch}: name the dataset it was made for")
        if _is_transposed(given, takes):
            raise UsageError(f"{mismatch}: add layout='{'NCHW' if self.layout == 'NHWC' else 'NHWC'}'")
        if not self.may_reshape:
            raise UsageError(f"{mismatch}: add input_shape={list(takes)} to reshape it")


def _is_transposed(given: tuple[int, ...], takes: tuple[int, ...]) -> bool:
    """Whether both have the same axes in another order, so that a reshape would scramble the image."""
    one, other = ([length for length in shape if length != 1] for shape in (given, takes))
    return one != other and sorted(one) == sorted(other)


def _name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _read(file: Path, source: str) -> onnx.ModelProto:
    try:
        proto = onnx.load(str(file), load_external_data=False)
    except DecodeError as error:
        raise UsageError(f"{source}: not an ONNX file") from error
    if any(uses_external_data(tensor) for tensor in proto.graph.initializer):
        raise UsageError(
            f"{source}: its weights lie in another file; make it one file with onnx.save(onnx.load('{file.name}'), ...)"
        )
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise UsageError(f"{source}: not a valid ONNX model ({describe_error(error)})") from error
    return proto


def _sample_shape(proto: onnx.ModelProto, source: str) -> tuple[int, ...] | None:
    """Shape of one sample, None where the file leaves it open. UsageError unless one float input gives one output."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    outputs = [value.name for value in proto.graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        raise UsageError(
            f"{source}: has inputs {listed(value.name for value in inputs)} and outputs {listed(outputs)}; "
            "cut out one of each with onnx.utils.extract_model"
        )
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        found = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise UsageError(f"{source}: takes {found} inputs; a network of float32 inputs is needed, so {RE_EXPORT}")
    lengths = [axis.dim_value for axis in kind.shape.dim[1:]]
    return tuple(lengths) if lengths and all(lengths) else None


def _converted(proto: onnx.ModelProto, source: str) -> fx.GraphModule:
    try:
        graph: fx.GraphModule = onnx2torch.convert(proto)
        return graph.eval()
    except NotImplementedError as error:
        raise UsageError(f"{source}: onnx2torch cannot convert it ({describe_error(error)}); {RE_EXPORT}") from error
    except Exception as error:  # a converter of onnx2torch may stumble in any way over a valid file
        raise UsageError(f"{source}: onnx2torch fails on it ({describe_error(error)}); {RE_EXPORT}") from error
