"""Right gradients through frozen batch normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def right_gradients(net: nn.Module) -> nn.Module:
    """The net, with batch normalisations that get a gradient in plain memory order where it is of one sample.

    torch (2.15 on the CPU, at least) returns a wrong gradient otherwise, and says nothing: its kernel for eval mode
    misreads the strides that flattening and transposing a batch of one leaves, as transformers do behind a
    convolutional backbone. A batch of two gets the right one.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and _in_plain_order not in module._forward_hooks.values():
            module.register_forward_hook(_in_plain_order)
    return net


def _in_plain_order(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    if len(output) == 1 and output.requires_grad:
        output.register_hook(_plain)  # type: ignore[no-untyped-call]


def _plain(gradient: Tensor) -> Tensor:
    return gradient.clone(memory_format=torch.contiguous_format)
