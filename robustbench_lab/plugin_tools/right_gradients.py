"""Gradients to the input in eval mode, where PyTorch gives a wrong one or none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def right_gradients(net: nn.Module) -> nn.Module:
    """The net itself, with hooks on layers whose gradient is wrong or missing in eval mode.

    Batch normalisations get their gradient in plain memory order where it is of one sample: torch (2.15 on the CPU, at
    least) returns a wrong one otherwise, and says nothing. Its kernel for eval mode misreads the strides that
    flattening and transposing a batch of one leaves, as transformers do behind a convolutional backbone. A batch of two
    gets the right one.

    Recurrent layers leave cuDNN aside where a gradient is asked for: "cudnn RNN backward can only be called in training
    mode".
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and _in_plain_order not in module._forward_hooks.values():
            module.register_forward_hook(_in_plain_order)
        if isinstance(module, nn.RNNBase) and _leave_cudnn not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_leave_cudnn)
            module.register_forward_hook(_return_to_cudnn, always_call=True)
    return net


def has_others_hooks(module: nn.Module) -> bool:
    """Whether somebody looks at what the module takes or gives, `right_gradients` aside."""
    ours = (_in_plain_order, _leave_cudnn, _return_to_cudnn)
    return any(hook not in ours for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()))


def _in_plain_order(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    if len(output) == 1 and output.requires_grad:
        output.register_hook(_plain)  # type: ignore[no-untyped-call]


def _plain(gradient: Tensor) -> Tensor:
    return gradient.clone(memory_format=torch.contiguous_format)


_before: list[bool] = []
"""Whether cuDNN was in use, for each recurrent layer that is at work."""


def _leave_cudnn(_module: nn.Module, _inputs: Any) -> None:
    _before.append(torch.backends.cudnn.enabled)
    if torch.is_grad_enabled():
        torch.backends.cudnn.enabled = False


def _return_to_cudnn(_module: nn.Module, _inputs: Any, _output: Any) -> None:
    torch.backends.cudnn.enabled = _before.pop()
