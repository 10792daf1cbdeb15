"""Gradients to the input of layers that PyTorch is slow at on a CPU, where the layers' own weights want none."""

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
DTYPES = (torch.float32, torch.float64)


def quick_gradients(net: nn.Module) -> nn.Module:
    """The net itself: strided convolutions of few channels, and batch normalisations, have another way back.

    Outputs stay as they are bit by bit, gradients differ by float rounding. Only modules of exactly PyTorch's own
    classes are taken: others, timm's `StdConv2d` say, compute something else from the same weights.
    """
    for module in net.modules():
        if type(module) is nn.Conv2d and _is_slow(module):
            module.__class__ = QuickConv2d
        elif type(module) is nn.BatchNorm2d:
            module.__class__ = QuickBatchNorm2d
    return net


def class_of(module: nn.Module) -> type[nn.Module]:
    """The class of a module, before it was given another way back."""
    return {QuickConv2d: nn.Conv2d, QuickBatchNorm2d: nn.BatchNorm2d}.get(type(module), type(module))


def _is_slow(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return plain and max(conv.stride) > 1 and max(conv.dilation) == 1 and conv.in_channels <= FEW_CHANNELS


def _only_the_inputs_gradient(x: Tensor, *parameters: Tensor | None) -> bool:
    if not (torch.is_grad_enabled() and x.requires_grad) or any(p is not None and p.requires_grad for p in parameters):
        return False
    return x.device.type == "cpu" and x.ndim == 4 and x.dtype in DTYPES and not torch.is_autocast_enabled("cpu")


class QuickConv2d(nn.Conv2d):
    """A strided convolution of few channels, in many networks the first one.

    oneDNN computes the gradient to a few input channels with most of its vector lanes empty. One convolution without a
    stride, whose channels are then shuffled to their pixels (Shi et al. 2016, https://arxiv.org/abs/1609.07009), takes
    a third to three quarters of that time (benchmarks/input_gradients.py).
    """

    def _get_name(self) -> str:
        """For `repr`: the network is what it was."""
        return "Conv2d"

    def forward(self, x: Tensor) -> Tensor:
        """`[B, I, H, W]` to `[B, O, h, w]`."""
        if not _only_the_inputs_gradient(x, self.weight, self.bias):
            return super().forward(x)
        made: Tensor = _Convolution.apply(x, self.weight, self.bias, self.stride, self.padding)
        return made


class QuickBatchNorm2d(nn.BatchNorm2d):
    """A batch normalisation in eval mode: a factor and a shift for each channel, so that the way back is the factor.

    PyTorch's way back also sums over the images what only weights would want, and keeps the input for it.
    """

    def _get_name(self) -> str:
        """For `repr`: the network is what it was."""
        return "BatchNorm2d"

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same."""
        mean, var = self.running_mean, self.running_var
        if self.training or mean is None or var is None or not _only_the_inputs_gradient(x, self.weight, self.bias):
            return super().forward(x)
        made: Tensor = _Normalisation.apply(x, self.weight, self.bias, mean, var, self.eps)
        return made


class _Normalisation(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> Tensor:
        return functional.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        _x, weight, _bias, _mean, var, eps = inputs
        factor = (var.double() + eps).rsqrt()
        factor = factor if weight is None else factor * weight
        ctx.save_for_backward(factor.to(var.dtype).view(-1, 1, 1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None, None, None, None, None


class _Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, weight, _bias, ctx.stride, ctx.padding = inputs
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
