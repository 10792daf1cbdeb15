"""Backward-pass differentiable approximation (Athalye, Carlini & Wagner 2018, https://arxiv.org/abs/1802.00420)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def straight_through(x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    """`step(x)` in the forward pass, the identity in the backward pass.

    For steps without a useful gradient whose output stays near their input (rounding, compression).
    x and step(x): the same shape `[N, ...]`.
    """
    made = step(x.detach())
    return x + (made - x).detach()
