"""The one object an attack sees: maximise an objective over a region, sample by sample.

All the samples of a work unit are in it at once, and every query is cut into batches here, over the samples still
open: so batches stay full although samples drop out, and a finished sample costs nothing from then on.

    def sign_ascent(problem, *, steps: int = 10):
        x = problem.random_start()
        for _ in range(steps):
            _, gradient = problem.loss_and_gradient(x)
            x, gradient = problem.drop_done(x, gradient)
            if problem.finished:
                return
            x = problem.project(x + problem.eps / 4 * problem.steepest(gradient, x))
        problem.submit(x)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, Objective, Region, ThreatModel
from robustbench_lab.diagnostics.optimisation_trace import OptimisationTrace
from robustbench_lab.errors import AttackContractError
from robustbench_lab.pass_counter import PassCounter
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.sample_trees import cut, take

Progress = Callable[[int, int, int], None]
"""Called with (unbroken samples, forward passes, backward passes), often."""


@dataclass(frozen=True)
class ProblemSetting:
    """What an attack problem is made of. N is the number of samples of the work unit."""

    model: nn.Module
    """What the adversary attacks: on its device, in eval mode, parameters without gradient."""
    objective: Objective
    threat_model: ThreatModel
    clean: Tensor
    """`[N, ...]` on the model's device."""
    goal: Any
    """What `objective.prepare` returned."""
    open: Tensor
    """Bool `[N]`: the samples to attack; the others were wrong from the start."""
    bounds: Bounds
    rng: SampleRng
    batch_size: int


class AttackProblem:
    """Queries, geometry and random numbers for the samples still open, A of N; tensors are `[A, ...]`.

    Every input handed to `loss_and_gradient`, `loss`, `succeeded` or `submit` is a candidate: the core keeps, for each
    sample, the first that succeeds (or, where the objective does not stop at success, the most damaging), and re-checks
    it afterwards. An input that is only a point to look at goes in with `candidate=False`.
    """

    def __init__(self, setting: ProblemSetting, progress: Progress = lambda *_: None) -> None:
        self._objective = setting.objective
        self._setting = setting
        self._counter = PassCounter(setting.model)
        self._progress = progress
        self._batch_size = setting.batch_size
        self.trace = OptimisationTrace()
        count = len(setting.clean)
        device = setting.clean.device
        self._best = setting.clean.clone()
        self._best_damage = torch.full((count,), float("-inf"), device=device)
        self._broken = torch.zeros(count, dtype=torch.bool, device=device)
        self._unbroken = int(setting.open.sum())
        self._unmoved = torch.ones(count, dtype=torch.bool, device=device)
        self._all_moved = False
        self._take_open(setting.open.nonzero().squeeze(1))

    def _take_open(self, index: Tensor) -> None:
        self._open = index
        self._goal = take(self._setting.goal, index)
        # A copy: an attack that overwrites its inputs must not change those that the audit holds its results against.
        clean = self._setting.clean.index_select(0, index)
        self._region: Region = self._setting.threat_model.around(clean, self._setting.bounds)
        self._rng = self._setting.rng.select(index)
        self._done = torch.zeros(len(index), dtype=torch.bool, device=clean.device)

    # ------------------------------------------------------------ what is given

    @property
    def clean(self) -> Tensor:
        """The clean inputs. Changing them in place spoils the attack, and nothing else."""
        return self._region.clean

    @property
    def goal(self) -> Any:
        """What the objective aims at: for the untargeted objective on classifiers the labels, int64 `[A]`."""
        return self._goal

    @property
    def finished(self) -> bool:
        """Whether no sample is open any more."""
        return len(self._open) == 0

    @property
    def open_samples(self) -> int:
        """A, the number of samples still open."""
        return len(self._open)

    @property
    def open_positions(self) -> Tensor:
        """Where the open samples stand among the N of the work unit, int64 `[A]`."""
        return self._open

    @property
    def norm(self) -> str | None:
        """The norm of the threat model, where it has one."""
        return self._setting.threat_model.norm

    @property
    def eps(self) -> float:
        """The budget, in the norm's own units."""
        return self._setting.threat_model.eps

    @property
    def bounds(self) -> Bounds:
        """The range of valid inputs."""
        return self._setting.bounds

    @property
    def objective(self) -> Objective:
        """For wrapped libraries that need to know what is asked for."""
        return self._objective

    @property
    def batch_size(self) -> int:
        """Samples in one query of the model at most; becomes smaller when memory runs out."""
        return self._batch_size

    @property
    def counted_model(self) -> PassCounter:
        """The model itself, for wrapped libraries; its passes are counted."""
        return self._counter

    # ------------------------------------------------------------ geometry and random numbers

    def project(self, x: Tensor) -> Tensor:
        """`x` moved into the region; `x` itself may be overwritten."""
        return self._region.project(x)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The step of size 1, in the region's norm, along which the loss rises most; may overwrite `gradient`."""
        return self._region.steepest(gradient, x)

    def distance(self, x: Tensor) -> Tensor:
        """Distance from the clean input in the region's norm, `[A]`."""
        return self._region.distance(x)

    def random_start(self, restart: int = 0) -> Tensor:
        """A random point of the region, the same for a sample whatever else is in the batch."""
        self.trace.restart()
        return self._region.random_start(self._rng, f"start/{restart}")

    def uniform(self, draw: str) -> Tensor:
        """Uniform numbers in [0, 1), one for each input element; another `draw` gives other numbers."""
        return self._rng.uniform(tuple(self.clean.shape[1:]), draw)

    def normal(self, draw: str) -> Tensor:
        """Standard normal numbers, one for each input element."""
        return self._rng.normal(tuple(self.clean.shape[1:]), draw)

    # ------------------------------------------------------------ queries

    def loss_and_gradient(
        self, x: Tensor, loss: str | None = None, *, candidate: bool = True, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Per-sample loss `[A]` and its gradient `[A, ...]`: one forward and one backward pass a sample.

        out: a tensor like `x` to write the gradient to, such as the last one; saves its allocation at every step.
        """
        self._check(x)
        results = [
            self._with_smaller_batches(part, lambda piece: self._loss_and_gradient(x, piece, loss, candidate))
            for part in self._parts()
        ]
        if not results:
            return x.new_empty(0), torch.empty_like(x)
        losses, gradients = _joined(results, out)
        self.trace.observe(losses, gradients)
        return losses, gradients

    def loss(self, x: Tensor, loss: str | None = None, *, candidate: bool = True) -> Tensor:
        """Per-sample loss `[A]`: one forward pass a sample."""
        return self._query(x, lambda prediction, goal: self._objective.loss(loss, prediction, goal), candidate)

    def succeeded(self, x: Tensor, *, candidate: bool = True) -> Tensor:
        """Whether each `x` reaches the goal, bool `[A]`: one forward pass a sample."""
        return self._query(x, self._objective.succeeded, candidate)

    def logits(self, x: Tensor, *, candidate: bool = True) -> Tensor:
        """The model's output `[A, K]`, for attacks on classifiers: one forward pass a sample."""
        return self._query(x, lambda prediction, _goal: prediction, candidate)

    def submit(self, x: Tensor) -> None:
        """Hand in final candidates, one for each open sample: one forward pass a sample.

        Where none succeeds the last one handed in is what the core re-checks and saves.
        """
        self._query(x, self._objective.succeeded, candidate=True)
        if self._objective.stop_on_success:
            undecided = ~self._done
            self._best[self._open[undecided]] = x[undecided]

    def drop_done(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The attack's own state `[A, ...]`, cut to the samples that are still open from now on."""
        if not bool(self._done.any()):
            return tensors
        keep = (~self._done).nonzero().squeeze(1)
        self._open = self._open.index_select(0, keep)
        self._goal = take(self._goal, keep)
        self._region = self._region.select(keep)
        self._rng = self._rng.select(keep)
        self._done = torch.zeros(len(keep), dtype=torch.bool, device=keep.device)
        self.trace.keep(keep)
        return tuple(tensor.index_select(0, keep) for tensor in tensors)

    # ------------------------------------------------------------ what the core asks afterwards

    @property
    def candidates(self) -> Tensor:
        """The candidate kept for each of the N samples of the unit; the clean input where there is none."""
        return self._best

    @property
    def claimed(self) -> Tensor:
        """Bool `[N]`: the samples that the attack has broken, by its own queries."""
        return self._broken

    @property
    def unmoved(self) -> Tensor:
        """Bool `[N]`: the samples for which no candidate but the clean input was ever handed in."""
        return self._unmoved

    # ------------------------------------------------------------ inside

    def _check(self, x: Tensor) -> None:
        expected = self.clean
        if x.shape != expected.shape or x.dtype != expected.dtype or x.device != expected.device:
            raise AttackContractError(
                f"the attack queried a {x.dtype} tensor {list(x.shape)} on {x.device}; the open samples are "
                f"{expected.dtype} {list(expected.shape)} on {expected.device}"
            )

    def _parts(self) -> Iterator[slice]:
        start = 0
        while start < len(self._open):
            stop = min(start + self._batch_size, len(self._open))
            yield slice(start, stop)
            start = stop

    def _query(self, x: Tensor, read: Callable[[Any, Any], Tensor], candidate: bool) -> Tensor:
        self._check(x)
        with torch.inference_mode():
            results = [
                self._with_smaller_batches(part, lambda piece: (self._read(x, piece, read, candidate),))
                for part in self._parts()
            ]
        return torch.cat([result for (result,) in results]) if results else x.new_empty(0)

    def _read(self, x: Tensor, part: slice, read: Callable[[Any, Any], Tensor], candidate: bool) -> Tensor:
        goal = cut(self._goal, part.start, part.stop)
        prediction = self._counter(x[part])
        self._after(x, part, prediction, goal, candidate)
        return read(prediction, goal)

    def _loss_and_gradient(self, x: Tensor, part: slice, loss: str | None, candidate: bool) -> tuple[Tensor, Tensor]:
        goal = cut(self._goal, part.start, part.stop)
        leaf = x[part].detach().requires_grad_()
        with torch.enable_grad():
            prediction = self._counter(leaf)
            losses = self._objective.loss(loss, prediction, goal)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        with torch.no_grad():
            self._after(x, part, prediction, goal, candidate)
        return losses.detach(), gradient

    def _after(self, x: Tensor, part: slice, prediction: Any, goal: Any, candidate: bool) -> None:
        if candidate:
            self._record(x, part, prediction, goal)
        self._progress(self._unbroken, self._counter.forward_passes, self._counter.backward_passes)

    def _record(self, x: Tensor, part: slice, prediction: Any, goal: Any) -> None:
        if not self._all_moved:
            self._note_moves(x, part)
        succeeded = self._objective.succeeded(prediction, goal)
        if self._objective.stop_on_success:
            better = succeeded & ~self._done[part]
            self._done[part] |= succeeded
        else:
            damage = self._objective.damage(prediction, goal).to(self._best_damage.dtype)
            rows = self._open[part]
            better = damage > self._best_damage[rows]
            self._best_damage[rows] = torch.where(better, damage, self._best_damage[rows])
        if bool(better.any()):
            rows = self._open[part][better]
            self._best[rows] = x[part][better].detach()
            self._unbroken -= int(succeeded[better].sum()) - int(self._broken[rows].sum())
            self._broken[rows] = succeeded[better]

    def _note_moves(self, x: Tensor, part: slice) -> None:
        self._unmoved[self._open[part]] &= (x[part] == self.clean[part]).flatten(1).all(1)
        self._all_moved = not bool((self._unmoved & self._setting.open).any())

    def _with_smaller_batches(self, part: slice, work: Callable[[slice], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """`work` on one part; when memory runs out, on halves of it, and on batches of that size from then on."""
        try:
            return work(part)
        except (torch.OutOfMemoryError, MemoryError):
            size = part.stop - part.start
            if size == 1:
                raise
            self._batch_size = max(1, size // 2)
        middle = part.start + size // 2
        halves = [
            self._with_smaller_batches(piece, work) for piece in (slice(part.start, middle), slice(middle, part.stop))
        ]
        return _joined(halves)


def _joined(results: list[tuple[Tensor, ...]], out: Tensor | None = None) -> tuple[Tensor, ...]:
    """Per-batch results to results for all samples, without a copy where there was one batch.

    out: memory for the last of the results, taken where it has the right size.
    """
    if len(results) == 1:
        return results[0]
    *others, last = zip(*results, strict=True)
    fits = out is not None and len(out) == sum(len(part) for part in last)
    return (*(torch.cat(parts) for parts in others), torch.cat(last, out=out if fits else None))
