"""VFGA, the voting folded Gaussian attack (Hajri et al. 2022, https://arxiv.org/abs/2011.12423), Algorithm 2."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.minimum_norm.single_values import log_odds, room
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.passes.model_queries import Loss

Count = Annotated[int, Field(ge=1)]


def vfga(problem: AttackProblem, *, steps: Count = 1000, samples: Count = 10) -> None:
    """Changes one more value in each step, by the best of several random sizes, until the goal is reached.

    Two values stand for election: the one whose way up to its bound promises most, and the one whose way down does.
    Each is moved by the folded Gaussian's sizes, in units of that way, and the move that hurts the model most stays.

    steps: values changed at most.
    samples: random sizes tried for either value.
    """
    problem.new_search(ascends=False)
    loss = log_odds(problem)
    x = problem.clean.clone()
    # Steps that one draw, a number for each value, has enough for.
    served = max(1, math.prod(x.shape[1:]) // (2 * samples))
    for step in range(steps):
        if step % served == 0:
            sizes = _folded_normals(problem, 2 * samples, f"sizes/{step}")
        first = step % served * 2 * samples
        gradient = problem.loss_and_gradient(x, loss)[1].nan_to_num_(0, 0, 0)
        x = _best_move(problem, loss, x, gradient.flatten(1), sizes[:, first : first + 2 * samples])
        index = (~problem.found() & (x == problem.clean).flatten(1).any(1)).nonzero().squeeze(1)
        problem, x, sizes = problem.part(index), x[index], sizes[index]
        if problem.finished:
            return


def _folded_normals(problem: AttackProblem, count: int, draw: str) -> Tensor:
    """At least `count` numbers for each sample, `[A, M]`."""
    dimension = math.prod(problem.clean.shape[1:])
    draws = (problem.normal(f"{draw}/{part}").flatten(1) for part in range(-(-count // dimension)))
    return torch.cat(list(draws), 1).abs_()


def _best_move(problem: AttackProblem, loss: Loss, x: Tensor, gradient: Tensor, sizes: Tensor) -> Tensor:
    """`x` with one more value changed, `[A, ...]`. sizes: `[A, 2 S]`, half of them for the value that rises."""
    value, move, new = _moves(problem, x, gradient, sizes)
    losses = torch.full_like(move, float("-inf"))
    for some in torch.arange(move.shape[1], device=x.device).split(problem.searches_at_once):
        row, column = (new[:, some] & ~problem.found()[:, None]).nonzero(as_tuple=True)  # a success ends the vote
        if len(row):
            column = some[column]
            tried = _moved(problem, x[row], value[row, column, None], move[row, column, None])
            losses[row, column] = problem.part(row).loss(tried, loss).nan_to_num_(float("-inf"))
    best = losses.argmax(1, keepdim=True)
    return _moved(problem, x, value.gather(1, best), move.gather(1, best))


def _moves(problem: AttackProblem, x: Tensor, gradient: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The moves to vote on: which value, by how much, and whether it is not the same as one before, each `[A, 2 S]`."""
    down, up = room(problem, x)
    changed = (x != problem.clean).flatten(1)
    values, moves, new = [], [], []
    for sign, way, size in zip((1, -1), (up, down), sizes.chunk(2, 1), strict=True):
        value = (sign * gradient * way).masked_fill_(changed, float("-inf")).argmax(1, keepdim=True)
        share = size.clamp(max=1).sort(dim=1, descending=True).values
        values.append(value.expand_as(share))
        moves.append(share * (sign * way).gather(1, value))
        # All sizes of 1 and more end at the bound: the first of them is enough.
        new.append(share < 1)
        new[-1][:, 0] = True
    return torch.cat(values, 1), torch.cat(moves, 1), torch.cat(new, 1)


def _moved(problem: AttackProblem, x: Tensor, value: Tensor, step: Tensor) -> Tensor:
    """`x` `[B, ...]` with one value each, at the places `value` `[B, 1]`, moved by `step` `[B, 1]`."""
    moved = x.flatten(1).scatter_add(1, value, step).reshape(x.shape)
    return moved.clamp_(problem.bounds.low, problem.bounds.high)
