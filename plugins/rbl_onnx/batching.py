"""Networks exported for a batch of 1, run on batches: the fastest way that gives every sample its own result."""

import copy
import logging
from collections.abc import Iterator

import torch
from onnx2torch.node_converters.constant import OnnxConstant
from onnx2torch.node_converters.reshape import OnnxReshape
from torch import Tensor, fx, nn

from robustbench_lab.errors import UsageError, describe_error

PROBES = 3
SPREAD_TOLERANCE = 1e-3
"""Largest difference between a sample in a batch and alone, relative to the difference between samples ..."""
ROUNDING_TOLERANCE = 1e-5
"""... plus this much of the largest output (one float32 rounding is 1e-7)."""
log = logging.getLogger(__name__)


class ConstantReshape(nn.Module):
    """ONNX Reshape to a shape known beforehand: 0 keeps an axis, -1 is worked out. Never waits for the device."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape([x.shape[axis] if length == 0 else length for axis, length in enumerate(self.shape)])


def fix_constant_reshapes(graph: fx.GraphModule) -> fx.GraphModule:
    """The same graph with constant target shapes in Python: as tensors, each would cost a wait for the device."""
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not isinstance(graph.get_submodule(node.target), OnnxReshape):
            continue
        shape = _constant(graph, node.args[1])
        if shape is not None:
            node.target = f"{node.name}_constant"
            graph.add_submodule(node.target, ConstantReshape(shape.tolist()))
            node.args = node.args[:1]
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def batched(net: nn.Module, sample_shape: tuple[int, ...], source: str) -> nn.Module:
    """The net, or a form of it, that gives each of N samples `[N, *sample_shape]` what it gives that sample alone.

    Tried in turn: as it is; with reshapes to a batch of 1 freed; vectorised over samples (vmap); one by one.
    Raises UsageError where it does not even run on a single sample of this shape.
    """
    probes = torch.rand((PROBES, *sample_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            alone = torch.cat([net(probe[None]) for probe in probes])
        except Exception as error:  # whatever operator meets a shape it cannot take
            shape = "x".join(map(str, (1, *sample_shape)))
            raise UsageError(
                f"{source}: does not run on an input of shape {shape} ({describe_error(error)}); check input_shape"
            ) from error
        for candidate, slow in _candidates(net):
            if _agrees(candidate, probes, alone):
                if slow:
                    log.warning(
                        "%s was exported for a batch of 1 and runs %s: export it with a batch axis", source, slow
                    )
                return candidate
    raise UsageError(
        f"{source}: gives NaN, or another output each time, on random inputs; export it in evaluation mode"
    )


def _candidates(net: nn.Module) -> Iterator[tuple[nn.Module, str | None]]:
    """Each with the reason why it is slow, if it is."""
    yield net, None
    yield _with_free_batch(net), None
    yield Vectorised(net), "sample by sample (vmap)"
    yield OneByOne(net), "one sample at a time"


class Vectorised(nn.Module):
    """Each sample as a batch of 1, all at once."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        prediction: Tensor = torch.vmap(lambda sample: self.net(sample[None]).squeeze(0))(x)
        return prediction


class OneByOne(nn.Module):
    """Each sample as a batch of 1, in a loop."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(x[row : row + 1]) for row in range(len(x))])


def _agrees(net: nn.Module, probes: Tensor, alone: Tensor) -> bool:
    try:
        together = net(probes)
    except Exception:  # a form that cannot run on batches is passed over; one that runs is compared
        return False
    if together.shape != alone.shape:
        return False
    spread = (alone - alone.roll(1, 0)).abs().max()
    tolerance = SPREAD_TOLERANCE * spread + ROUNDING_TOLERANCE * alone.abs().max()
    return bool((together - alone).abs().max() <= tolerance)


def _with_free_batch(net: nn.Module) -> nn.Module:
    """A copy whose constant reshapes to `[1, ...]` take a batch of any size."""
    freed = copy.deepcopy(net)
    for module in freed.modules():
        if isinstance(module, ConstantReshape) and module.shape[0] == 1:
            module.shape = [0 if -1 in module.shape else -1, *module.shape[1:]]
    return freed


def _constant(graph: fx.GraphModule, node: object) -> Tensor | None:
    """The tensor that a node of the graph always gives, if so."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "get_attr":
        return graph.get_buffer(str(node.target))
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        if isinstance(module, OnnxConstant) and isinstance(module.value, Tensor):
            return module.value
    return None
