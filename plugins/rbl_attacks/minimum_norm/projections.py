"""Changes of the inputs made no larger than a radius that each sample has for itself.

The core's regions have one budget for all samples, and exact projections; here a point slightly outside does no harm,
since its distance is measured. `change` is `[A, D]` and may be overwritten, `radius` is `[A, 1]`; `lowest` and
`highest` `[A, D]` are what the data's range leaves for the change.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Projection = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

_MOST_STEPS = 60
_TOLERANCE = 1e-4


def onto_linf(change: Tensor, radius: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:  # noqa: ARG001
    """Each coordinate cut to the radius, `[A, D]`; the range is left to the caller's clamping, which is exact."""
    return change.clamp_(-radius, radius)


def onto_l2(change: Tensor, radius: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:  # noqa: ARG001
    """Shortened to the radius, `[A, D]`; the range is left to the caller's clamping, as the published attacks do."""
    norm = torch.linalg.vector_norm(change, dim=1, keepdim=True).clamp_min_(1e-30)
    return change.mul_((radius / norm).clamp_max_(1))


def onto_l1(change: Tensor, radius: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """The nearest point of the l1 ball and the range, `[A, D]` (Croce & Hein 2021, "Mind the box", Prop. 2.1).

    Sizes are cut by a common threshold and to the room there is; the threshold at which they sum to the radius, to 1e-4
    of it, comes from Newton's method, with a bisection where a step leaves what is known to enclose it.
    """
    size, room = change.abs(), torch.where(change > 0, highest, -lowest)
    kept, threshold = torch.minimum(size, room), torch.zeros_like(radius)
    low, high = threshold, size.amax(1, keepdim=True)
    for _ in range(_MOST_STEPS):
        excess = kept.sum(1, keepdim=True) - radius
        solved = (excess.abs() <= _TOLERANCE * radius) | ((excess < 0) & (threshold == 0))
        if bool(solved.all()):
            break
        low, high = torch.where(excess > 0, threshold, low), torch.where(excess > 0, high, threshold)
        newton = threshold + excess / ((kept > 0) & (kept < room)).sum(1, keepdim=True)
        step = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        threshold = torch.where(solved, threshold, step)
        kept = torch.minimum((size - threshold).clamp_min_(0), room)
    return kept.copysign_(change)


def onto_l0(change: Tensor, radius: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """The nearest point that changes at most `radius` coordinates and is in the range, `[A, D]`.

    Kept are the coordinates that bring the point nearest to `change`, and others are 0.
    """
    within = change.clamp(lowest, highest)
    gain = within * (2 * change - within)
    count = radius.long().clamp_(max=change.shape[1])
    order = gain.topk(int(count.max()), dim=1).indices
    ranks = torch.arange(order.shape[1], device=order.device)
    kept = within.gather(1, order).mul_(ranks < count)
    return torch.zeros_like(within).scatter_(1, order, kept)


PROJECTIONS: dict[str, Projection] = {"linf": onto_linf, "l2": onto_l2, "l1": onto_l1, "l0": onto_l0}
