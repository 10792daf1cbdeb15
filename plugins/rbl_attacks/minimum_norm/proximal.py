"""Proximal operators of the norms, in the metric of an adaptive optimiser.

For a point r `[A, ...]`, the metric's diagonal d `[A, ...]` and a weight k `[A]`, all but the point above 0, each finds
the z that minimises

    sum_i d_i (z_i - r_i)**2 / 2 + k norm(z)

Every sample's iteration stops on its own, so that a sample's result does not depend on the others.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rbl_attacks.minimum_norm.unit_gradient import per_sample

Proximal = Callable[[Tensor, Tensor, Tensor], Tensor]

_NEWTON_STEPS = 30
_TOLERANCE = 1e-4


def proximal_l0(r: Tensor, d: Tensor, k: Tensor) -> Tensor:
    """A coordinate is kept where that costs less than it gains."""
    return r.masked_fill(r.square().mul_(d) < per_sample(2 * k, r), 0)


def proximal_l1(r: Tensor, d: Tensor, k: Tensor) -> Tensor:
    """Every coordinate shrinks by k / d."""
    return r.abs().sub_(per_sample(k, r) / d).clamp_min_(0).copysign_(r)


def proximal_l2(r: Tensor, d: Tensor, k: Tensor) -> Tensor:
    """With s the length of z, z is r d s / (d s + k); 0 where no s above 0 fits.

    With n(s) the length of r d / (d s + k), s solves n(s) = 1. Newton's method on 1 / n(s), which is almost linear,
    comes from below.
    """
    flat, d, k = r.flatten(1), d.flatten(1), k[:, None]
    pull = flat * d
    length = torch.zeros_like(k)
    solved = torch.linalg.vector_norm(pull, dim=1, keepdim=True) <= k
    for _ in range(_NEWTON_STEPS):
        q = pull / (d * length + k)
        n = torch.linalg.vector_norm(q, dim=1, keepdim=True)
        solved |= n - 1 <= _TOLERANCE
        if bool(solved.all()):
            break
        slope = (q.square() * d).div_(d * length + k).sum(1, keepdim=True) / n
        length = torch.where(solved, length, length + n * (n - 1) / slope)
    return (pull * length).div_(d * length + k).reshape(r.shape)


def proximal_linf(r: Tensor, d: Tensor, k: Tensor) -> Tensor:
    """Every coordinate is cut at one level, where the sum of d (abs(r) - level) over what is cut is k.

    That sum falls convexly, so Newton's method from 0 comes from below and ends at the solution.
    """
    size, d, k = r.flatten(1).abs(), d.flatten(1), k[:, None]
    total = size * d
    level = torch.zeros_like(k)
    for _ in range(_NEWTON_STEPS):
        cut = size > level
        weight = torch.where(cut, d, 0).sum(1, keepdim=True)
        better = (torch.where(cut, total, 0).sum(1, keepdim=True) - k) / weight
        better = torch.where(weight > 0, better, level)
        done = better <= level * (1 + _TOLERANCE)
        if bool(done.all()):
            break
        level = torch.where(done, level, better)
    return torch.minimum(size, level).reshape(r.shape).copysign_(r)


PROXIMAL: dict[str, Proximal] = {
    "l0": proximal_l0,
    "l1": proximal_l1,
    "l2": proximal_l2,
    "linf": proximal_linf,
}
