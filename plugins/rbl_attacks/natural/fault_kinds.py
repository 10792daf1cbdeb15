"""Faults of measured series, and how large they are at each severity.

All random numbers are each sample's own, the same at all severities of a kind. Channels have faults of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

SPIKE = 3.0
"""Height of a spike in training standard deviations."""
BLOCKS = 3
"""Blocks that are missing, one in each third of the history."""


class Numbers(Protocol):
    """Where random numbers come from: `[N, *shape]`, the same for a sample whatever else is in the batch."""

    def uniform(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor: ...
    def normal(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Fault:
    """One kind."""

    apply: Callable[[Tensor, Tensor, float, Numbers], Tensor]
    """Histories `[N, L, C]`, units `[N, 1, C]`, a level and random numbers to histories with the fault."""
    levels: tuple[float, ...]
    """At severities 1 to 5."""


def gaussian_noise(x: Tensor, unit: Tensor, level: float, numbers: Numbers) -> Tensor:
    """Normal noise of `level` standard deviations on every value."""
    return x + level * unit * numbers.normal("gaussian_noise", tuple(x.shape[1:]))


def spikes(x: Tensor, unit: Tensor, level: float, numbers: Numbers) -> Tensor:
    """A share of the values is `SPIKE` standard deviations too high or too low."""
    hit = numbers.uniform("spikes/place", tuple(x.shape[1:])) < level
    up = numbers.uniform("spikes/sign", tuple(x.shape[1:])) < 0.5
    return x + SPIKE * unit * hit * torch.where(up, 1.0, -1.0)


def dropout(x: Tensor, unit: Tensor, level: float, numbers: Numbers) -> Tensor:  # noqa: ARG001 (of all kinds)
    """A share of the steps, in one run, reads 0."""
    return torch.where(_run(x, level, numbers, "dropout"), 0.0, x)


def stuck(x: Tensor, unit: Tensor, level: float, numbers: Numbers) -> Tensor:  # noqa: ARG001
    """The last steps, so large a share, repeat the value before them."""
    steps = _steps(x, level)
    return torch.cat([x[:, :-steps], x[:, -steps - 1 : -steps].expand(-1, steps, -1)], dim=1)


def missing_blocks(x: Tensor, unit: Tensor, level: float, numbers: Numbers) -> Tensor:  # noqa: ARG001
    """A share of the steps, in `BLOCKS` runs, is filled with the last value before each."""
    thirds = x.tensor_split(BLOCKS, dim=1)
    gone = torch.cat(
        [_run(third, level, numbers, f"missing_blocks/{number}") for number, third in enumerate(thirds)], 1
    )
    gone[:, 0] = False
    step = torch.arange(x.shape[1], device=x.device)[:, None]
    return x.gather(1, torch.where(gone, 0, step).cummax(1).values)


def drift(x: Tensor, unit: Tensor, level: float, numbers: Numbers) -> Tensor:
    """An error that grows evenly, up or down, to `level` standard deviations at the last step."""
    growth = torch.linspace(0, 1, x.shape[1], dtype=x.dtype, device=x.device)[:, None]
    return x + level * unit * growth * _sign(x, numbers, "drift")


def level_shift(x: Tensor, unit: Tensor, level: float, numbers: Numbers) -> Tensor:
    """From a step in the middle half on all values are `level` standard deviations too high or too low."""
    begin = (0.25 + 0.5 * numbers.uniform("level_shift/place", (1, x.shape[2]))) * x.shape[1]
    after = torch.arange(x.shape[1], device=x.device)[:, None] >= begin
    return x + level * unit * after * _sign(x, numbers, "level_shift")


def time_shift(x: Tensor, unit: Tensor, level: float, numbers: Numbers) -> Tensor:  # noqa: ARG001
    """Everything comes late by so large a share of the steps; the first value fills the beginning."""
    steps = _steps(x, level)
    return torch.cat([x[:, :1].expand(-1, steps, -1), x[:, :-steps]], dim=1)


def saturation(x: Tensor, unit: Tensor, level: float, numbers: Numbers) -> Tensor:  # noqa: ARG001
    """Values are cut off but for the middle of the history's own range, of which so large a share is left."""
    low, high = x.aminmax(dim=1, keepdim=True)
    cut = (high - low) * ((1 - level) / 2)
    return torch.minimum(torch.maximum(x, low + cut), high - cut)


KINDS: Mapping[str, Fault] = {
    "gaussian_noise": Fault(gaussian_noise, (0.05, 0.1, 0.2, 0.4, 0.8)),
    "spikes": Fault(spikes, (0.01, 0.02, 0.05, 0.1, 0.2)),
    "dropout": Fault(dropout, (0.02, 0.05, 0.1, 0.2, 0.4)),
    "stuck": Fault(stuck, (0.02, 0.05, 0.1, 0.2, 0.4)),
    "missing_blocks": Fault(missing_blocks, (0.02, 0.05, 0.1, 0.2, 0.4)),
    "drift": Fault(drift, (0.1, 0.25, 0.5, 1.0, 2.0)),
    "level_shift": Fault(level_shift, (0.1, 0.25, 0.5, 1.0, 2.0)),
    "time_shift": Fault(time_shift, (0.005, 0.01, 0.02, 0.04, 0.08)),
    "saturation": Fault(saturation, (0.9, 0.75, 0.6, 0.45, 0.3)),
}


def with_fault(x: Tensor, unit: Tensor, kind: str, severity: int, numbers: Numbers) -> Tensor:
    """Histories `[N, L, C]` with a fault of a kind of `KINDS`, severity 1 to 5. unit: `[N, 1, C]`."""
    fault = KINDS[kind]
    return fault.apply(x, unit, fault.levels[severity - 1], numbers)


def _steps(x: Tensor, share: float) -> int:
    """A share of the steps, at least 1, and one less than there are at most."""
    return min(max(1, math.ceil(share * x.shape[1])), x.shape[1] - 1)


def _run(x: Tensor, share: float, numbers: Numbers, draw: str) -> Tensor:
    """A run of consecutive steps at a random place of each channel, bool `[N, L, C]`."""
    steps = _steps(x, share)
    first = (numbers.uniform(draw, (1, x.shape[2])) * (x.shape[1] - steps + 1)).floor()
    step = torch.arange(x.shape[1], device=x.device)[:, None]
    return (step >= first) & (step < first + steps)


def _sign(x: Tensor, numbers: Numbers, draw: str) -> Tensor:
    """1 or -1 for each channel, `[N, 1, C]`."""
    return torch.where(numbers.uniform(f"{draw}/sign", (1, x.shape[2])) < 0.5, 1.0, -1.0)
