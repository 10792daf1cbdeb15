"""In which order in memory a network runs fastest. Numbers change by float32 rounding only.

Channels-last halves the time of some networks and doubles that of others, by no rule that would hold across devices
(benchmarks/memory_format.py), so both are tried. Only where minutes of work lie ahead: a few trial passes would cost
more than they gain otherwise, and a short run gives bit by bit the same numbers every time.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn

WORTH_SECONDS = 60.0
"""Expected work, in seconds, from which trials are made."""
GAIN = 0.95
"""Share of the usual time below which channels-last is taken."""
FEW = 4
"""Inputs in the passes that tell whether trials are worth their time."""
MOST = 32
"""Inputs in a trial: as many as an attack's batches have, if this is no small part of the work ahead."""
COST = 0.05
"""Share of the work ahead that trials may take."""
TRIALS = 3
"""Of each order. The shortest counts: whatever else the machine does makes a pass longer, never shorter."""
HOPELESS = 1.5
"""Share of the usual time above which one trial is enough."""


def fastest_format(model: nn.Module, example: Tensor, passes: int) -> torch.memory_format | None:
    """The order in which the model is fastest, and leaves it in that order; None where no trial is worth its time.

    example: up to `MOST` inputs `[N, C, H, W]`, as many as a batch has. passes: forward and backward passes of single
    samples that lie ahead.
    """
    if example.ndim != 4 or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return None
    few = example[:FEW]
    _seconds(model, few)  # the first pass prepares kernels
    if _seconds(model, few) / len(few) * passes < WORTH_SECONDS:
        return None
    batch = example[: max(FEW, int(COST * passes / (2 * TRIALS + 2)))]
    usual = _shortest(model, batch, enough=math.inf)
    model.to(memory_format=torch.channels_last)
    if _shortest(model, batch, enough=HOPELESS * usual) < GAIN * usual:
        return torch.channels_last
    model.to(memory_format=torch.contiguous_format)
    return torch.contiguous_format


def _shortest(model: nn.Module, x: Tensor, enough: float) -> float:
    """Seconds of the shortest pass after one that prepares kernels. enough: of a pass after which no other follows."""
    _seconds(model, x)
    first = _seconds(model, x)
    return first if first > enough else min(first, *(_seconds(model, x) for _ in range(TRIALS - 1)))


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
