"""In which order in memory a network runs fastest. Numbers change by float32 rounding only.

Channels-last halves the time of some networks and doubles that of others, by no rule that would hold across devices
(benchmarks/memory_format.py), so both are tried. Only where minutes of work lie ahead: a few trial passes would cost
more than they gain otherwise, and a short run gives bit by bit the same numbers every time.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

WORTH_SECONDS = 60.0
"""Expected work, in seconds, from which trials are made."""
GAIN = 0.9
"""Share of the usual time below which channels-last is taken, in each of the trials."""
TRIALS = 3


def fastest_format(model: nn.Module, example: Tensor, passes: int) -> torch.memory_format | None:
    """The order in which the model is fastest, and leaves it in that order; None where no trial is worth its time.

    example: a few inputs `[N, C, H, W]`. passes: forward and backward passes of single samples that lie ahead.
    """
    if example.ndim != 4 or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return None
    _seconds(model, example)  # the first pass prepares kernels
    usual = _seconds(model, example)
    if usual / len(example) * passes < WORTH_SECONDS:
        return None
    for _ in range(TRIALS):
        model.to(memory_format=torch.channels_last)
        _seconds(model, example)
        last = _seconds(model, example)
        if last > GAIN * usual:
            model.to(memory_format=torch.contiguous_format)
            return torch.contiguous_format
    return torch.channels_last


def _seconds(model: nn.Module, x: Tensor) -> float:
    """Of a forward and a backward pass; of the forward pass alone, where there is no gradient."""
    began = time.perf_counter()
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        prediction = model(leaf)
        logits = getattr(prediction, "logits", prediction)  # a detector's, or a classifier's own output
        if isinstance(logits, Tensor) and logits.requires_grad:
            torch.autograd.grad(logits.sum(), leaf)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began
