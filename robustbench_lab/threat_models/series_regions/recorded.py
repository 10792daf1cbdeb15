"""Windows of a recorded series that agree wherever they overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor

from robustbench_lab.errors import SkipCell
from robustbench_lab.threat_models.series_regions.boxed import Boxed
from robustbench_lab.threat_models.series_regions.channels import history_steps

if TYPE_CHECKING:
    from robustbench_lab.sample_rng import SampleRng

_ROUNDING = 2.0**-22
"""Four units of float32 rounding."""


@dataclass(frozen=True, eq=False)
class Recorded(Boxed):
    """The inputs of a box that move each value of the recorded series alike, in all windows that see it.

    Whether they agree is a matter of all windows of the region together; what is made of each (`project`) is its own.
    """

    place: Tensor
    """int64 `[N, L]`: which step of the recorded series each step of a window is."""

    def project(self, x: Tensor) -> Tensor:
        """The box's, `[N, L, C]`; overwrites `x`. What agrees does so afterwards: the box is the same for all."""
        return self.box.project(x)

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:  # noqa: ARG002 (the protocol's)
        """Random numbers belong to windows, which would not agree. Raises SkipCell."""
        raise SkipCell("recorded-series has no random points for each window: use the attack 'timestamp-universal'")

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The box's, of each window by itself; overwrites `gradient`."""
        return self.box.steepest(gradient, x)

    def contains(self, x: Tensor) -> Tensor:
        """Whether the box contains it, and it agrees with the other windows on what may change, bool `[N]`."""
        return self._agrees(x) & self.box.contains(x)

    def select(self, index: Tensor) -> Self:
        """The region around some of the samples."""
        return replace(self, box=self.box.select(index), place=self.place.index_select(0, index))

    def _agrees(self, x: Tensor) -> Tensor:
        """Whether all windows have moved each value alike, up to float32 rounding, bool `[N]`."""
        movable, inner = self.box.movable, x[0, 0].numel() if len(x) else 0
        within = torch.arange(inner, device=x.device).reshape(x.shape[2:])
        which = (self.place.reshape(*self.place.shape, *(1,) * within.dim()) * inner + within).flatten()
        change, size = x - self.clean, x.abs().maximum(self.clean.abs())

        def of_all(values: Tensor, how: Literal["amin", "amax"], otherwise: float) -> Tensor:
            values = torch.where(movable, values, otherwise).flatten()
            return values.new_full((len(which),), otherwise).scatter_reduce_(0, which, values, how)[which]

        spread = of_all(change, "amax", -torch.inf) - of_all(change, "amin", torch.inf)
        differs = spread > 2 * _ROUNDING * of_all(size, "amax", 0)
        return ~(differs.reshape(x.shape) & movable).flatten(1).any(1)


def places(clean: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """Which step of the recorded series each step of windows `[N, L, C]` is, int64 `[N, L]`, without gaps from 0."""
    first = targets["start"] - history_steps(clean, targets)
    when = first[:, None] + torch.arange(clean.shape[1], device=first.device)
    block = targets.get("block", torch.zeros_like(first))[:, None].expand_as(when)
    steps = torch.stack([block, when], 2).flatten(0, 1)
    _, place = steps.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    return torch.as_tensor(place).reshape(when.shape)
