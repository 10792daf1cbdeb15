"""The open samples of an attack problem in batches: what each query needs of them, looked up once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from robustbench_lab.contracts import Region
from robustbench_lab.problem_parts.candidate_ledger import Rows
from robustbench_lab.sample_trees import cut
from robustbench_lab.threat_models.climbing import is_cuttable


@dataclass(frozen=True)
class Piece:
    """B open samples that follow each other."""

    part: slice
    """Where among the A open samples."""
    rows: Rows
    """Where among the N of the work unit."""
    goal: Any
    clean: Tensor
    """`[B, ...]`."""
    around: Region
    """The region around all A samples."""

    @cached_property
    def region(self) -> Region:
        """The region around these."""
        if len(self.clean) == len(self.around.clean):
            return self.around
        if is_cuttable(self.around):
            return self.around.cut(self.part.start, self.part.stop)
        return self.around.select(torch.arange(self.part.start, self.part.stop, device=self.clean.device))


class Pieces:
    """Of one set of open samples, which stays the same."""

    def __init__(self, open_rows: Tensor, goal: Any, region: Region) -> None:
        """open_rows: int64 `[A]`, their places among the N."""
        self._open, self._goal, self._region = open_rows, goal, region
        first = int(open_rows[0]) if len(open_rows) else 0
        follow = torch.equal(open_rows, torch.arange(first, first + len(open_rows), device=open_rows.device))
        self._first = first if follow else None
        self._known: dict[tuple[int, int], Piece] = {}

    def __getitem__(self, part: slice) -> Piece:
        """Of the open samples those from `part.start` to `part.stop`."""
        key = part.start, part.stop
        if key not in self._known:
            self._known[key] = self._made(part)
        return self._known[key]

    def _made(self, part: slice) -> Piece:
        everything = part.stop - part.start == len(self._open)
        goal = self._goal if everything else cut(self._goal, part.start, part.stop)
        clean = self._region.clean if everything else self._region.clean[part]
        rows = self._open[part] if self._first is None else slice(self._first + part.start, self._first + part.stop)
        return Piece(part, rows, goal, clean, self._region)
