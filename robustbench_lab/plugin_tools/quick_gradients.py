"""Gradients to the input of convolutions that PyTorch is slow at on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW_CHANNELS = 4
"""Input channels up to which the quick way is quick."""
_COLUMNS_AT_ONCE = 1 << 22
"""Numbers; bounds the memory, of which the columns of a sample take as many times its own as the kernel has places."""


def quick_gradients(net: nn.Module) -> nn.Module:
    """The net itself, with hooks on strided convolutions of few channels: in many networks the first one.

    oneDNN computes the gradient to a few input channels with most of its vector lanes empty. One matrix product and a
    sum over overlapping windows (im2col backwards) takes a third to two thirds of that time, and up to a tenth off a
    small network's whole pass (benchmarks/input_gradients.py). Values differ by float rounding. Only with one thread,
    as worker processes have: oneDNN shares its work better among several.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and _is_slow(module) and _replace not in module._forward_hooks.values():
            module.register_forward_hook(_replace)
    return net


def _is_slow(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return plain and max(conv.stride) > 1 and conv.in_channels <= FEW_CHANNELS


def _replace(conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """The same output with another way back, where only the input's gradient is asked for."""
    (x,) = inputs
    if torch.get_num_threads() > 1:
        return None
    frozen = not conv.weight.requires_grad and (conv.bias is None or not conv.bias.requires_grad)
    if not (output.requires_grad and frozen and x.device.type == "cpu" and x.ndim == 4):
        return None
    if x.dtype not in (torch.float32, torch.float64):
        return None
    places = {"kernel_size": conv.kernel_size, "dilation": conv.dilation, "padding": conv.padding}
    changed: Tensor = _QuickBackward.apply(x, output.detach(), conv.weight, {**places, "stride": conv.stride})
    return changed


class _QuickBackward(torch.autograd.Function):
    """Passes a convolution's output on; its gradient goes to the convolution's input."""

    generate_vmap_rule = True

    @staticmethod
    def forward(_x: Tensor, output: Tensor, _weight: Tensor, _places: dict[str, Any]) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, _output, weight, ctx.places = inputs
        ctx.size = x.shape[2:]
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        transposed = weight.flatten(1).t()
        columns = transposed.shape[0] * gradient.shape[2] * gradient.shape[3]
        parts = torch.split(gradient.flatten(2), max(1, _COLUMNS_AT_ONCE // columns))
        return (
            torch.cat([functional.fold(transposed @ part, ctx.size, **ctx.places) for part in parts]),
            None,
            None,
            None,
        )
