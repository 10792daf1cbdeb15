"""Isotonic regression between bounds, for many sequences at once."""

from __future__ import annotations

import torch
from torch import Tensor


def bounded_isotonic(x: Tensor, lowest: Tensor, highest: Tensor, begins: Tensor) -> Tensor:
    """The nearest sequences in the Euclidean sense that do not fall and lie between bounds, `[R, L]`.

    x, lowest, highest: float64 `[R, L]`; the bounds do not fall either, and there is room between them.
    begins: bool `[R, L]`: steps at which a new part of a sequence begins, before which anything may stand; the first
    of all is one.

    By pooling adjacent violators (Best, Chakravarti & Ubhaya, "Minimizing separable convex functions subject to simple
    chain constraints", SIAM J. Optimization 2000): blocks of equal values, each at what is best for all its steps,
    which is their mean between the last of their lowest and the first of their highest values.
    """
    rows, steps = x.shape
    blocks = _Blocks.none(x)
    row = torch.arange(rows, device=x.device)
    for step in range(steps):
        total, size, first = x[:, step].clone(), x.new_ones(rows), torch.full_like(row, step)
        while True:
            best = torch.minimum(torch.maximum(total / size, lowest[:, step]), highest[row, first])
            above = blocks.number - 1  # -1 where there is none: then the block begins a part
            violates = (blocks.value[row, above] > best) & ~begins[row, first]
            if not bool(violates.any()):
                break
            total = total + blocks.total[row, above] * violates
            size = size + blocks.size[row, above] * violates
            first = torch.where(violates, blocks.first[row, above], first)
            blocks.number -= violates.long()
        blocks.push(row, total, size, first, best)
    return blocks.spread(row, steps)


class _Blocks:
    """A stack of blocks for each sequence: `[R, L]` each, of which the first `number` `[R]` count."""

    def __init__(self, value: Tensor, total: Tensor, size: Tensor, first: Tensor, number: Tensor) -> None:
        self.value, self.total, self.size, self.first, self.number = value, total, size, first, number

    @classmethod
    def none(cls, x: Tensor) -> _Blocks:
        number = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        first = torch.zeros(x.shape, dtype=torch.int64, device=x.device)
        return cls(torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x), first, number)

    def push(self, row: Tensor, total: Tensor, size: Tensor, first: Tensor, value: Tensor) -> None:
        for held, new in ((self.total, total), (self.size, size), (self.first, first), (self.value, value)):
            held[row, self.number] = new
        self.number += 1

    def spread(self, row: Tensor, steps: int) -> Tensor:
        """Each step's value, `[R, L]`."""
        counts = torch.arange(steps, device=row.device) < self.number[:, None]
        starts = torch.zeros_like(counts, dtype=torch.int64).scatter_add_(1, self.first, counts.long())
        return self.value.gather(1, starts.cumsum(1) - 1)
