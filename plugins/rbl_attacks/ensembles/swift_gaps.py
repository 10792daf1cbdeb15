"""How far every sample is from breaking, and how far searches bring samples: what swift spends its passes by."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem

WORTH = 0.01
"""A search goes on with a sample while it has at least this chance to break it."""
FEW = 4
"""So many of the nearest samples stay to the end in any case."""


class Gaps:
    """For each of the N samples of a work unit the share of its clean margin that no search has closed yet.

    1 at the clean input, 0 at the boundary: the same unit for all samples, and for logits of any scale.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        self._clean = torch.full((samples,), float("nan"), device=device)
        self._best = torch.full((samples,), float("-inf"), device=device)
        self._gains: list[Tensor] = []
        self._before = self._best.clone()

    def saw(self, problem: AttackProblem, logits: Tensor) -> None:
        """Logits `[A, K]` of the open samples at some inputs; the first ones must be those of the clean inputs."""
        rows = problem.open_positions
        margin = problem.objective.damage(logits, problem.goal).float().nan_to_num(0.0)
        self._clean[rows] = torch.where(self._clean[rows].isnan(), margin, self._clean[rows])
        self._best.scatter_reduce_(0, rows, margin, "amax")  # a sample can stand in several rows

    def left(self, rows: Tensor) -> Tensor:
        """The share that is left, `[A]`."""
        return self._share(self._best, rows)

    def begin_round(self) -> None:
        self._before = self._best.clone()

    def end_round(self, rows: Tensor) -> None:
        """What the searches of this round gained on these samples, broken ones included, int64 `[A]`."""
        self._gains.append(self._share(self._before, rows) - self._share(self._best, rows))

    def racing(self, rows: Tensor, share: float) -> Tensor:
        """Positions among `rows` of the samples that go on, int64 `[B]`: the nearest, and those worth more."""
        left = self.left(rows)
        nearest = left.argsort(stable=True).argsort() < max(FEW, int(share * len(rows)))
        return (nearest | self._worth_more(left)).nonzero().squeeze(1)

    def _worth_more(self, left: Tensor) -> Tensor:
        """Bool `[A]`: of the searches of the last two rounds, at least 1% (and one) closed as much as is left."""
        gains = torch.cat(self._gains[-2:]).sort().values
        enough = len(gains) - torch.searchsorted(gains, left)
        return enough >= max(1.0, WORTH * len(gains))

    def _share(self, best: Tensor, rows: Tensor) -> Tensor:
        start = self._clean[rows].clamp(max=-torch.finfo(torch.float32).tiny)
        return (best[rows] / start).clamp(min=0, max=1)
