"""The state of an APGD search, and how each norm makes its steps. All tensors are `[A, ...]`, for the open samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

Query = Callable[..., tuple[Tensor, Tensor]]
"""`AttackProblem.loss_and_gradient` with its loss."""
TINY = 1e-12


@dataclass
class Iterate:
    """Where a search stands."""

    aimed: Tensor
    """The wrong class to aim at, int64 `[A, 1]`; 0 where the loss aims at none."""
    x: Tensor
    loss: Tensor
    """`[A]`."""
    gradient: Tensor
    best_x: Tensor
    best_loss: Tensor
    """`[A]`; -inf where the loss has never been a number."""
    best_gradient: Tensor
    previous: Tensor | None = None
    """The point before `x`; None at the start."""

    @classmethod
    def start(cls, query: Query, x: Tensor, aimed: Tensor) -> Iterate:
        """At `x`: takes one query."""
        loss, gradient = query(x, given=(aimed,))
        best_loss = torch.where(loss.isnan(), -torch.inf, loss)
        return cls(aimed, x, loss, gradient, x.clone(), best_loss, gradient.clone())

    def keep_best(self) -> None:
        """Remember the points at which the loss is higher than ever."""
        rows = (self.loss > self.best_loss).nonzero().squeeze(1)
        self.best_loss = torch.fmax(self.best_loss, self.loss)
        self.best_x.index_copy_(0, rows, self.x.index_select(0, rows))
        self.best_gradient.index_copy_(0, rows, self.gradient.index_select(0, rows))

    def go_back(self, where: Tensor) -> None:
        """Some samples, bool `[A]`, go on from their best point."""
        rows = where.nonzero().squeeze(1)
        self.x.index_copy_(0, rows, self.best_x.index_select(0, rows))
        self.gradient.index_copy_(0, rows, self.best_gradient.index_select(0, rows))


class Steps(Protocol):
    """A norm's rule."""

    def move(self, problem: AttackProblem, at: Iterate) -> Tensor:
        """The next point, as a new tensor; may overwrite `at.gradient` and `at.previous`."""
        ...

    def adapt(self, problem: AttackProblem, at: Iterate, step: int) -> Tensor | None:
        """After step number `step`, from 1: at a checkpoint, adapt the step size.

        Returns bool `[A]`, the samples that go back to their best point; None where no sample does.
        """
        ...


def drop_done(problem: AttackProblem, *states: object) -> None:
    """Cut all the tensors that some dataclasses hold to the samples still open."""
    held = [(state, name) for state in states for name, value in vars(state).items() if isinstance(value, Tensor)]
    kept = problem.drop_done(*(getattr(state, name) for state, name in held))
    for (state, name), tensor in zip(held, kept, strict=True):
        setattr(state, name, tensor)


@dataclass
class MomentumSteps:
    """linf and l2: Croce & Hein 2020, Algorithm 1, with both its conditions for halving the step size."""

    checkpoints: dict[int, int]
    rho: float
    size: Tensor
    last_loss: Tensor
    """`[A]`. 0 at the start: the official code counts a first rise where the loss is positive."""
    rises: Tensor
    """Steps since the last checkpoint that raised the loss, `[A]`."""
    checked_loss: Tensor
    """The best loss at the last checkpoint, `[A]`."""
    halved: Tensor
    """Whether the step size was halved at the last checkpoint, bool `[A]`."""
    times: float = 1.0
    """The radius of the ball to stay in, in budgets."""

    @classmethod
    def start(cls, problem: AttackProblem, at: Iterate, steps: int, rho: float, times: float = 1.0) -> MomentumSteps:
        """The first step is twice the radius."""
        zero = torch.zeros_like(at.loss)
        size = torch.full_like(at.loss, 2 * times * problem.eps)
        begun = torch.ones_like(zero, dtype=torch.bool)
        return cls(checkpoints(steps), rho, size, zero, zero, at.best_loss, begun, times)

    def move(self, problem: AttackProblem, at: Iterate) -> Tensor:
        """Three quarters of a projected step, and a quarter of the last move (lines 7 and 8)."""
        direction = _steepest(problem, at.gradient, at.x)
        x = project_times(problem, torch.addcmul(at.x, _per_sample(self.size, direction), direction), self.times)
        if at.previous is None:
            return x
        # 0.75 of the way to x and 0.25 of the last move: from x, a quarter of the way to 2 at.x - at.previous.
        return project_times(problem, x.lerp_(torch.lerp(at.previous, at.x, 2, out=at.previous), 0.25), self.times)

    def adapt(self, problem: AttackProblem, at: Iterate, step: int) -> Tensor | None:  # noqa: ARG002
        """Halve where too few steps raised the loss, or where nothing was gained since the last checkpoint."""
        self.rises = self.rises + (at.loss > self.last_loss)
        self.last_loss = at.loss
        if step not in self.checkpoints:
            return None
        few_rises = self.rises <= self.rho * self.checkpoints[step]
        no_gain = ~self.halved & (self.checked_loss >= at.best_loss)
        self.halved = few_rises | no_gain
        self.size = torch.where(self.halved, self.size / 2, self.size)
        self.rises = torch.zeros_like(self.rises)
        self.checked_loss = at.best_loss
        return self.halved


def checkpoints(steps: int) -> dict[int, int]:
    """The steps, from 1, after which the step size is judged, and for each how many were made since the last one.

    First 22% of all steps, then 3% fewer each time, but at least 6% (section 3.3).
    """
    window, fewer, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    step, found = window, {}
    while step <= steps:
        found[step] = window
        window = max(window - fewer, least)
        step += window
    return found


@dataclass
class SparseSteps:
    """l1: Croce & Hein 2021, Algorithm 1.

    A step is of equal size in the coordinates with the largest gradients. How many these are follows from the number
    that the best point has changed so far.
    """

    eps: float
    """The radius of the ball to stay in, which need not be the budget."""
    window: int
    """Steps from one checkpoint to the next."""
    size: Tensor
    share: Tensor
    """How many of the coordinates a step moves, `[A]`."""
    changed: Tensor
    """Coordinates that differed from the clean ones at the last checkpoint, `[A]`."""

    @classmethod
    def start(cls, problem: AttackProblem, at: Iterate, eps: float, steps: int, *, warm: bool) -> SparseSteps:
        """The first step is of size `eps`. warm: whether `at.x` shows how many coordinates to move; otherwise 20%."""
        size = torch.full_like(at.loss, eps)
        dimension = problem.clean[:1].numel()
        changed = _changed(problem, at.x) if warm else torch.full_like(size, dimension)
        share = changed / dimension / 1.5 if warm else torch.full_like(size, 0.2)
        return cls(eps, max(int(0.04 * steps), 1), size, share, changed)

    def move(self, problem: AttackProblem, at: Iterate) -> Tensor:
        """A step along the signs of the largest gradients, put back into the ball and the bounds."""
        gradient = at.gradient.flatten(1).nan_to_num_(0)
        magnitude = gradient.abs()
        dimension = gradient.shape[1]
        number = dimension - ((1 - self.share) * dimension).clamp_(0, dimension - 1).long()
        largest = magnitude.topk(int(number.max()), dim=1).values
        smallest_moved = largest.gather(1, number[:, None] - 1)
        direction = gradient.sign_().mul_(magnitude >= smallest_moved)
        size = self.size / direction.abs().sum(1).clamp_(min=1)
        x = torch.addcmul(at.x, _per_sample(size, at.x), direction.view_as(at.x))
        return project_l1(problem, x, self.eps)

    def adapt(self, problem: AttackProblem, at: Iterate, step: int) -> Tensor | None:
        """Where the best point became sparser, go on from it with a step of size `eps`; elsewhere a smaller step."""
        if step % self.window:
            return None
        changed = _changed(problem, at.best_x)
        sparser = changed / self.changed < 0.95
        self.changed = changed
        self.share = changed / at.x[:1].numel() / 1.5
        self.size = torch.where(sparser, self.eps, (self.size / 1.5).clamp_(min=self.eps / 10))
        return sparser


def project_times(problem: AttackProblem, x: Tensor, times: float) -> Tensor:
    """The nearest point of the region whose budget is so many times the problem's; may overwrite `x`."""
    if times == 1:
        return problem.project(x)
    ball = {"linf": Linf, "l2": L2}[str(problem.norm)](eps=times * problem.eps)
    return ball.around(problem.clean, problem.bounds).project(x)


def project_l1(problem: AttackProblem, x: Tensor, eps: float) -> Tensor:
    """The nearest point, within the bounds, of the l1 ball of radius `eps`; overwrites `x`."""
    return L1(eps=eps).around(problem.clean, problem.bounds).project(x)


def _changed(problem: AttackProblem, x: Tensor) -> Tensor:
    """How many coordinates differ from the clean ones, `[A]`, as a float."""
    return (x != problem.clean).flatten(1).sum(1).to(x.dtype)


def _steepest(problem: AttackProblem, gradient: Tensor, x: Tensor) -> Tensor:
    """The steepest direction of size 1, always of finite numbers. Overwrites `gradient`."""
    if isinstance(problem.unit, Tensor):
        return problem.steepest(gradient.nan_to_num_(0, 0, 0), x)
    if problem.norm == "linf":
        return gradient.sign_()  # 0 where it is NaN
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    if bool(((norm > TINY) & norm.isfinite()).all()):
        return gradient.div_(_per_sample(norm, gradient))
    return problem.steepest(gradient.nan_to_num_(0, 0, 0), x)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """`[A]` to `[A, 1, ...]`, to go with `like` `[A, ...]`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
