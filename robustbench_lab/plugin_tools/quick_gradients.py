"""Gradients to the input of convolutions that PyTorch is slow at on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[int, ...]
"""Of rows and columns."""
FEW_CHANNELS = 4
"""Input channels up to which the quick way is quick."""


def quick_gradients(net: nn.Module) -> nn.Module:
    """The net itself, with hooks on strided convolutions of few channels: in many networks the first one.

    oneDNN computes the gradient to a few input channels with most of its vector lanes empty. One convolution without a
    stride, whose channels are then shuffled to their pixels (Shi et al. 2016, https://arxiv.org/abs/1609.07009), takes
    a third to three quarters of that time (benchmarks/input_gradients.py). Values differ by float rounding.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and _is_slow(module) and _replace not in module._forward_hooks.values():
            module.register_forward_hook(_replace)
    return net


def _is_slow(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return plain and max(conv.stride) > 1 and max(conv.dilation) == 1 and conv.in_channels <= FEW_CHANNELS


def _replace(conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """The same output with another way back, where only the input's gradient is asked for."""
    (x,) = inputs
    frozen = not conv.weight.requires_grad and (conv.bias is None or not conv.bias.requires_grad)
    if not (output.requires_grad and frozen and x.device.type == "cpu" and x.ndim == 4):
        return None
    if x.dtype not in (torch.float32, torch.float64):
        return None
    changed: Tensor = _QuickBackward.apply(x, output.detach(), conv.weight, conv.stride, conv.padding)
    return changed


class _QuickBackward(torch.autograd.Function):
    """Passes a convolution's output on; its gradient goes to the convolution's input."""

    generate_vmap_rule = True

    @staticmethod
    def forward(_x: Tensor, output: Tensor, _weight: Tensor, _stride: Pair, _padding: Pair) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, _output, weight, ctx.stride, ctx.padding = inputs
        ctx.size = x.shape[2:]
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        return input_gradient(gradient, weight, ctx.stride, ctx.padding, ctx.size), None, None, None, None


def input_gradient(gradient: Tensor, weight: Tensor, stride: Pair, padding: Pair, size: Sequence[int]) -> Tensor:
    """The gradient to the input `[B, I, *size]` of a convolution of `weight` `[O, I, h, w]`, of `[B, O, *]` above it.

    Row `stride * t + r` of the padded input meets the kernel's rows `r`, `stride + r`, ... only. For each of the
    `stride` values of r that is a convolution without a stride; the rows of all of them interleave. The same holds for
    columns.
    """
    (high, wide), (top, left) = stride, padding
    kernels = _by_remainder(weight, stride)
    parts = functional.conv2d(gradient, kernels, padding=(kernels.shape[2] - 1, kernels.shape[3] - 1))
    count, _, rows, columns = parts.shape
    parts = parts.view(count, -1, high, wide, rows, columns).permute(0, 1, 4, 2, 5, 3)
    padded = parts.reshape(count, -1, rows * high, columns * wide)
    below, right = top + size[0] - padded.shape[2], left + size[1] - padded.shape[3]
    if below > 0 or right > 0:  # the last rows, which no window reached
        padded = functional.pad(padded, (0, max(0, right), 0, max(0, below)))
    return padded[:, :, top : top + size[0], left : left + size[1]]


def _by_remainder(weight: Tensor, stride: Pair) -> Tensor:
    """A kernel without a stride for each remainder: `[O, I, h, w]` to `[I * S * s, O, h / S, w / s]`, rounded up."""
    (high, wide), (outputs, channels, height, width) = stride, weight.shape
    rows, columns = -(-height // high), -(-width // wide)
    whole = functional.pad(weight, (0, columns * wide - width, 0, rows * high - height))
    kernels = whole.view(outputs, channels, rows, high, columns, wide).flip(2, 4).permute(1, 3, 5, 0, 2, 4)
    return kernels.reshape(channels * high * wide, outputs, rows, columns)
