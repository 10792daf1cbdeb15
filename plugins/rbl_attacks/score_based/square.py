"""Square Attack (Andriushchenko, Croce, Flammarion & Hein, ECCV 2020, https://arxiv.org/abs/1912.00049).

Random search: change a square of pixels at a random place, and keep the change where the loss rises. The parameters
are those of AutoAttack's code (https://github.com/fra31/auto-attack, autoattack/square.py). Two things differ, and
neither makes it weaker: every sample has its own place and signs where AutoAttack draws one place for the whole batch,
and the last row and column are reached, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.score_based.image_windows import ImageShape
from rbl_attacks.score_based.square_bumps import L2Bumps
from rbl_attacks.score_based.square_corners import Corners
from rbl_attacks.score_based.square_sparse_bumps import L1Bumps
from rbl_attacks.score_based.square_stretches import Stretches
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.errors import SkipCell

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations after which the window's share of the image halves, of SCHEDULED."""
SCHEDULED = 10_000
QUERIES_AT_ONCE = 64
"""Queries whose random numbers are drawn together: one draw of a few numbers costs as much as one of thousands."""


class Moves(Protocol):
    """How one norm changes its inputs. `state` is what has to be cut when samples are done."""

    state: tuple[Tensor, ...]
    least_gain: float
    """What the loss must rise by for a change to be kept, as a share of itself."""

    def numbers(self) -> int:
        """Uniform numbers that one change takes for each sample."""
        ...

    def start(self, draw: str) -> Tensor:
        """The first inputs to query, `[A, ...]`."""
        ...

    def plan(self, share: float, numbers: Tensor) -> tuple[Tensor, ...]:
        """What the next Q changes need of the random numbers `[A, Q, n]`, each tensor `[A, Q, ...]`.

        share: of the pixels, about, that each is to change.
        """
        ...

    def change(self, *planned: Tensor) -> Tensor:
        """The inputs to query next, changed as planned: of each tensor of the plan the next `[A, ...]`."""
        ...

    def settle(self, better: Tensor) -> None:
        """Keep the change where it is better, bool `[A]`, and undo it elsewhere."""
        ...

    def best(self) -> Tensor:
        """The inputs kept so far, `[A, ...]`."""
        ...


def square(
    problem: AttackProblem,
    *,
    queries: Annotated[int, Field(ge=2)] = 5000,
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8,
    restarts: Annotated[int, Field(ge=1)] = 1,
    rescale: bool = True,
    loss: str = "margin",
) -> None:
    """Random search over squares in linf, and over pairs of pseudo-Gaussian bumps in l2 and l1.

    Images may have any shape: where a square does not fit, it is a rectangle of the same area. Inputs without height
    are images of height 1, with segments for windows.

    queries: forward passes of one restart: the start, the changes, and at last the best input once more.
    p_init: share of the pixels in the first windows.
    restarts: searches with other random numbers; only samples still unbroken enter the next one.
    rescale: shrink the windows in the course of `queries`, as the paper's code does. False: as if there were 10,000,
    which is AutoAttack's way, and weaker where there are few.
    loss: one of the objective's losses; the paper takes the margin, and `ce` for targeted attacks.
    """
    _attack(problem, _windows, queries, p_init, restarts, loss, rescale=rescale)


def square_on_sets(
    problem: AttackProblem,
    *,
    queries: Annotated[int, Field(ge=2)] = 5000,
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8,
    restarts: Annotated[int, Field(ge=1)] = 1,
    rescale: bool = True,
    loss: str | None = None,
) -> None:
    """The same where a prediction is many at once, of objects, pixels or steps, and has no one margin.

    Histories `[N, L, C]` have stretches of steps for squares, which is not in the paper.

    queries, p_init, restarts, rescale: as in `square`.
    loss: one of the objective's losses; None: its usual one.
    """
    kind = Stretches if problem.clean.ndim == 3 else _windows
    _attack(problem, kind, queries, p_init, restarts, loss, rescale=rescale)


def _attack(
    problem: AttackProblem,
    kind: Callable[[AttackProblem], Moves],
    queries: int,
    p_init: float,
    restarts: int,
    loss: str | None,
    *,
    rescale: bool,
) -> None:
    pace = SCHEDULED / queries if rescale else 1.0
    for restart in range(restarts):
        _search(problem, kind(problem), queries, p_init, f"square/{restart}", loss, pace)
        if problem.finished:
            return


def _search(
    problem: AttackProblem, moves: Moves, queries: int, p_init: float, draw: str, loss: str | None, pace: float
) -> None:
    """pace: of the schedule's iterations, those that one query takes."""
    planned = 0.0
    best = _known(problem.loss(moves.start(f"{draw}/start"), loss))
    best, *moves.state = problem.drop_done(best, *moves.state)
    for query in range(queries - 2):
        if problem.finished:
            return
        turn = query % QUERIES_AT_ONCE
        if turn == 0:
            numbers = problem.uniform(f"{draw}/{query}", (QUERIES_AT_ONCE, moves.numbers()))
        share = _share(p_init, int(query * pace))
        if turn == 0 or share != planned:
            plan, first, planned = moves.plan(share, numbers[:, turn:]), turn, share
        reached = _known(problem.loss(moves.change(*(one[:, turn - first] for one in plan)), loss))
        better = reached > _bar(best, moves.least_gain)
        best = torch.where(better, reached, best)
        moves.settle(better)
        count = len(plan)
        best, numbers, *held = problem.drop_done(best, numbers, *plan, *moves.state)
        plan, moves.state = tuple(held[:count]), tuple(held[count:])
    if not problem.finished:
        problem.submit(moves.best())
        problem.drop_done()


def _windows(problem: AttackProblem) -> Moves:
    """Those of the threat model's norm."""
    image = ImageShape.of(tuple(problem.clean.shape[1:]))
    if problem.norm == "linf":
        return Corners(problem, image)
    if problem.norm == "l2":
        return L2Bumps(problem, image)
    if problem.norm == "l1":
        return L1Bumps(problem, image)
    raise SkipCell(f"the square attack is defined in linf, l2 and l1, not in {problem.norm}")


def _share(p_init: float, query: int) -> float:
    return p_init / 2.0 ** sum(query > halving for halving in HALVINGS)


def _bar(best: Tensor, gain: float) -> Tensor:
    return best + (gain * best.abs()).nan_to_num_(0, 0, 0) if gain else best


def _known(loss: Tensor) -> Tensor:
    """A loss that is no number is the worst there is, so that whatever comes after it is better."""
    return loss.nan_to_num(float("-inf"), float("inf"), float("-inf"))
