"""What an attack has found so far: for each of the N samples of a work unit the best candidate, and whether it is done.

Which candidate is the best:

- a fixed budget, and an objective that stops at success: the first that succeeds (on a randomized model the one that
  succeeds most often);
- a fixed budget, and an objective that does not stop: the most damaging, which may be the clean input;
- minimum norm: the nearest that succeeds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lab.errors import AttackContractError

Rows = Tensor | slice
"""Positions among the N samples, int64 `[B]`; a slice, where they follow each other, saves copies."""
SURE = 0.9
"""Share of several forward passes that must succeed before a sample of a randomized model is done."""


class CandidateLedger:
    """Shared by an attack problem and all its parts. Rows are positions among the N samples."""

    def __init__(
        self,
        clean: Tensor,
        attacked: Tensor,
        *,
        stops: bool,
        needs_success: bool,
        clean_score: Tensor | None = None,
    ) -> None:
        """Nothing found yet.

        clean: `[N, ...]`. attacked: bool `[N]`. stops: whether a sample is done once it is broken.
        needs_success: whether only inputs that succeed are kept. Otherwise clean_score is that of the clean inputs,
        `[N]`, which stay the best until something scores higher.
        """
        count = len(clean)
        self.best = clean.clone()
        self.broken = torch.zeros(count, dtype=torch.bool, device=clean.device)
        self.done = torch.zeros_like(self.broken)
        self.unmoved = torch.ones_like(self.broken)
        self._attacked = attacked
        self._score = torch.full((count,), float("-inf"), device=clean.device)
        if clean_score is not None and not needs_success:
            self._score = clean_score.to(self._score).clone()
        self.needs_success = needs_success
        self._stops = stops
        self._all_moved = False
        self._unbroken: int | None = None

    @property
    def unbroken(self) -> int:
        """How many of the attacked samples are not broken yet."""
        if self._unbroken is None:
            self._unbroken = int((self._attacked & ~self.broken).sum())
        return self._unbroken

    def state(self) -> dict[str, Tensor]:
        """All that was found, for `restore`."""
        return {
            "best": self.best,
            "broken": self.broken,
            "done": self.done,
            "unmoved": self.unmoved,
            "score": self._score,
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned for the same samples."""
        self.best, self.broken, self.done = state["best"], state["broken"], state["done"]
        self.unmoved, self._score = state["unmoved"], state["score"]
        self._unbroken = None

    def nearest(self, rows: Rows) -> Tensor:
        """Minimum norm: the smallest distance found, `[A]`; infinite where none succeeded yet."""
        return -self._score[rows]

    def note_moves(self, rows: Rows, x: Tensor, clean: Tensor) -> None:
        """Remember which samples were queried anywhere but at their clean inputs."""
        if self._all_moved:
            return
        # A fifth of the time of (x != clean).any(1) on a CPU; what is not a number differs, too.
        moved = ((x - clean).abs_().flatten(1).amax(1) != 0).nonzero().squeeze(1)
        self.unmoved.index_fill_(0, _places(rows, moved), False)
        self._all_moved = not bool((self.unmoved & self._attacked).any())

    def offer(self, rows: Rows, x: Tensor, success: Tensor, score: Tensor, permitted: Tensor | None) -> None:
        """Keep the candidates that are better than what is known.

        x: `[B, ...]`. success: bool `[B]`, or the share of forward passes that succeeded; above one half counts.
        score: `[B]`, larger is better. permitted: bool `[B]`, the rows that are candidates at all.
        """
        succeeded = success if success.dtype == torch.bool else success > 0.5
        # Of equal damage the later one counts: its loss is higher.
        known = rows_of(self._score, rows)
        better = succeeded & (score > known) if self.needs_success else score >= known
        if permitted is not None:
            better &= permitted
        index = better.nonzero().squeeze(1)
        if not len(index):
            return
        self._unbroken = None
        index = _one_of_each(index, rows, score)
        chosen = None if len(index) == len(better) else index
        _put(self.best, rows, chosen, x.detach())
        if isinstance(rows, slice):  # of a number for each sample all rows are looked at sooner than some are picked
            for kept, offered in ((known, score), (rows_of(self.broken, rows), succeeded)):
                torch.where(better, offered, kept, out=kept)
        else:
            _put(self._score, rows, chosen, score)
            _put(self.broken, rows, chosen, succeeded)
        if self._stops:
            sure = index[success[index] >= SURE]
            self.done.index_fill_(0, _places(rows, sure), True)

    def keep_last(self, rows: Tensor, x: Tensor) -> None:
        """Where nothing succeeded, keep the last input handed in, `[B, ...]`: it shows what was tried."""
        if not self.needs_success:
            return
        undecided = (~self.broken[rows]).nonzero().squeeze(1)
        undecided = _one_of_each(undecided, rows, torch.arange(len(rows), device=x.device))
        self.best.index_copy_(0, rows[undecided], x.index_select(0, undecided))

    def keep_together(self, rows: Tensor, x: Tensor) -> None:
        """Keep the inputs handed in, `[B, ...]`, whatever each does by itself: they are one."""
        self.best[rows] = x


def rows_of(x: Tensor, rows: Rows) -> Tensor:
    """`x[rows]`, without a call where that is all of it."""
    if isinstance(rows, slice) and rows.stop - rows.start == len(x):
        return x
    return x[rows]


def _places(rows: Rows, index: Tensor) -> Tensor:
    """Where some of the rows, int64 `[C]` among the B, stand among the N."""
    return rows.start + index if isinstance(rows, slice) else rows.index_select(0, index)


def _one_of_each(index: Tensor, rows: Rows, score: Tensor) -> Tensor:
    """Of several candidates for one sample, which may be open several times over, the first of the best; ascending."""
    if isinstance(rows, slice):
        return index
    places = rows.index_select(0, index)
    if bool((places[1:] > places[:-1]).all()):
        return index
    order = score.index_select(0, index).argsort(descending=True, stable=True)
    order = order[places[order].argsort(stable=True)]
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = places[order][1:] != places[order][:-1]
    return index[order[first]].sort().values


def _put(kept: Tensor, rows: Rows, chosen: Tensor | None, offered: Tensor) -> None:
    """Write to the rows of `kept` what is offered for them, `[B, ...]`; chosen: int64, those of the B, None: all."""
    if chosen is not None:  # index_select and index_copy_ move whole rows; a mask takes several times as long on a CPU
        offered = offered.index_select(0, chosen)
    if isinstance(rows, slice):
        kept, places = rows_of(kept, rows), chosen
    else:
        places = rows if chosen is None else rows.index_select(0, chosen)
    if places is None:
        kept.copy_(offered)
    else:
        kept.index_copy_(0, places, offered.to(kept.dtype))


def check_like(x: Tensor, expected: Tensor) -> None:
    """Raise AttackContractError where a query does not look like the open samples."""
    if x.shape != expected.shape or x.dtype != expected.dtype or x.device != expected.device:
        raise AttackContractError(
            f"the attack queried a {x.dtype} tensor {list(x.shape)} on {x.device}; the open samples are "
            f"{expected.dtype} {list(expected.shape)} on {expected.device}"
        )
