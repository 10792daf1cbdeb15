"""The one object an attack sees: maximise an objective over a region, sample by sample.

All the samples of a work unit are in it at once, and every query is cut into batches here, over the samples still
open: so batches stay full although samples drop out, and a finished sample costs nothing from then on.

    def sign_ascent(problem, *, steps: int = 10):
        x = problem.random_start()
        for _ in range(steps):
            (x,) = problem.drop_done(problem.ascend(x, problem.eps / 4))
            if problem.finished:
                return
        problem.submit(x)

An attack that searches for the nearest adversarial input (`AttackSpec.minimum_norm`) sees a region without a limit,
no sample is ever done, and the core keeps the nearest candidate that succeeds. On a randomized model every query is
the mean over `eot` forward passes (expectation over transformation, Athalye et al. 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from robustbench_lab.contracts import Bounds, Objective, Region, ThreatModel
from robustbench_lab.diagnostics.optimisation_trace import OptimisationTrace
from robustbench_lab.passes.batch_size import BatchSize
from robustbench_lab.passes.model_queries import Judgement, Loss, ModelQueries, Probe
from robustbench_lab.passes.pass_counter import PassCounter
from robustbench_lab.problem_parts.attack_checkpoint import AttackCheckpoint
from robustbench_lab.problem_parts.attack_stages import AttackStages
from robustbench_lab.problem_parts.candidate_ledger import CandidateLedger, check_like, rows_of
from robustbench_lab.problem_parts.problem_pieces import Pieces
from robustbench_lab.problem_parts.problem_setting import Candidate, ProblemSetting, Progress
from robustbench_lab.records import Finding
from robustbench_lab.sample_trees import join_results, take
from robustbench_lab.threat_models.climbing import climbed, is_cuttable
from robustbench_lab.threat_models.discrete_region import Discrete
from robustbench_lab.threat_models.masked_region import MaskedRegion
from robustbench_lab.threat_models.scaled_region import Scaled


class AttackProblem:
    """Queries, geometry and random numbers for the samples still open, A of N; tensors are `[A, ...]`.

    Every input handed to a query is a candidate: the core keeps, for each sample, the first that succeeds (or the most
    damaging, or the nearest: see candidate_ledger.py), and re-checks it afterwards. An input that is only a point to
    look at goes in with `candidate=False`; a bool tensor `[A]` says it for each sample.
    """

    def __init__(
        self,
        setting: ProblemSetting,
        progress: Progress | None = None,
        checkpoint: AttackCheckpoint | None = None,
    ) -> None:
        """checkpoint: what an earlier process has left there is gone on with."""
        self._objective = setting.objective
        self._setting = setting
        self._searched = setting.searched
        self._counter = PassCounter(setting.model)
        self._progress = progress
        self._memory = BatchSize(setting.batch_size)
        self._ledger = CandidateLedger(
            setting.clean,
            setting.open,
            stops=setting.objective.stop_on_success and not setting.minimum_norm,
            needs_success=setting.objective.stop_on_success or setting.minimum_norm,
            clean_score=None if setting.minimum_norm else setting.clean_measure.get("damage"),
        )
        self._queries = ModelQueries(self._counter, setting.objective, setting.eot, self._ledger.needs_success)
        self.trace = OptimisationTrace()
        self.notes: list[Finding] = []
        self.kept: list[tuple[str, Tensor]] = []
        self._times = 1
        self._stages = AttackStages(checkpoint, self._ledger, self.trace, self._counter, self.notes)
        self._take_open((setting.open & ~self._ledger.done).nonzero().squeeze(1))

    def part(self, index: Tensor) -> AttackProblem:
        """The same problem on some of the open samples only (int64 `[B]`): what is found there is found here.

        For attacks that spend more on some samples than on others; `drop_done` here drops what was broken there.
        """
        part = copy.copy(self)
        part.trace, part._times = self.trace.part(), 1
        part._take_open(self._open.index_select(0, index))
        return part

    def repeated(self, times: int) -> AttackProblem:
        """The same problem with each open sample several times over, for searches side by side: fuller batches.

        Row `n * A + a` is sample `a` in search `n`. A sample that one of them breaks is dropped from all, and from
        `self` by the next `drop_done` there. Random numbers are the same in each; diagnostics are of the last.
        """
        several = copy.copy(self)
        several._times = self._times * times
        several._take_open(self._open.repeat(times))
        return several

    def _take_open(self, index: Tensor) -> None:
        self._open = index
        self._goal = take(self._setting.goal, index)
        self._region: Region = self._setting.around(self._searched, index)
        relaxed = self._region.relaxed if isinstance(self._region, Discrete) else None
        self._points = None if relaxed is None else self._region
        self._region = relaxed or self._region
        self._rng = self._setting.rng.select(index)
        self._pieces = Pieces(self._open, self._goal, self._region)

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
    def minimum_norm(self) -> bool:
        """Whether the nearest adversarial input is sought, and not one within a budget."""
        return self._setting.minimum_norm

    @property
    def eot(self) -> int:
        """Forward passes that each query takes the mean of."""
        return self._setting.eot

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
    def threat_model(self) -> ThreatModel:
        """The threat model, for attacks made for one that says more than a norm; its region is queried here."""
        return self._searched

    @property
    def region(self) -> Region:
        """The inputs allowed around the clean ones, for attacks that need to know which parts of them may change."""
        return self._region

    @property
    def norm(self) -> str | None:
        """The norm of the threat model, where it has one."""
        return self._searched.norm

    @property
    def eps(self) -> float:
        """The budget, in the norm's own units; infinite for a minimum-norm attack."""
        return self._searched.eps

    @property
    def unit(self) -> Tensor | float:
        """What 1 of a norm's budget is in the data's own units: 1, or of each value's series, `[A, 1, C]`."""
        region = self._region.region if isinstance(self._region, MaskedRegion) else self._region
        return region.unit if isinstance(region, Scaled) else 1.0

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
        return self._memory.size

    @property
    def searches_at_once(self) -> int:
        """How many times the open samples go into one batch; at least 1."""
        return max(1, self._memory.size // max(1, len(self._open)))

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

    def contains(self, x: Tensor) -> Tensor:
        """Whether each `x` lies in the region and within the bounds, bool `[A]`."""
        return (self._points or self._region).contains(x)

    def nearest(self) -> Tensor:
        """For minimum-norm attacks: the distance of the nearest success so far, `[A]`; infinite where there is none."""
        return self._ledger.nearest(self._open)

    def best(self) -> Tensor:
        """A copy of the candidates kept so far, `[A, ...]`; the clean input where there is none."""
        return self._ledger.best[self._open]

    def found(self) -> Tensor:
        """Whether a success is known, bool `[A]`; where samples are done at success, those not dropped yet."""
        return self._ledger.broken[self._open]

    def random_start(self, restart: int = 0) -> Tensor:
        """A random point of the region, the same for a sample whatever else is in the batch."""
        self.new_search()
        return self._region.random_start(self._rng, f"start/{restart}")

    def new_search(self, *, ascends: bool = True) -> None:
        """The gradients that follow belong to a new search, for the diagnostics; `random_start` implies it.

        ascends: whether it climbs one loss until it settles; then its last search is judged by whether it did.
        """
        self.trace.restart(judged=ascends and not self.minimum_norm)

    def uniform(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """Uniform numbers in [0, 1), one for each input element; another `draw` gives other numbers.

        shape: that of one sample's numbers, where another is needed than the input's: then `[A, *shape]`.
        """
        return self._rng.uniform(tuple(self.clean.shape[1:]) if shape is None else shape, draw)

    def normal(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """Standard normal numbers, one for each input element; `shape` as in `uniform`."""
        return self._rng.normal(tuple(self.clean.shape[1:]) if shape is None else shape, draw)

    # ------------------------------------------------------------ queries

    def loss_and_gradient(
        self,
        x: Tensor,
        loss: Loss = None,
        *,
        given: Sequence[Tensor] = (),
        candidate: Candidate = True,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Per-sample loss `[A]` and its gradient `[A, ...]`: one forward and one backward pass a sample.

        loss: one of the objective's, or a function of the prediction, the goal and what is `given`.
        given: tensors `[A, ...]` that the loss function needs, such as a class to aim at for each sample.
        out: a tensor like `x` to write the gradient to, such as the last one; saves its allocation at every step.
        """
        probe = self._probe(x, loss, given, candidate, out, keep_prediction=False)
        return probe.loss, probe.gradient

    def ascend(self, x: Tensor, size: float, loss: Loss = None) -> Tensor:
        """`x` after one step of `size` along which its loss rises most, back in the region; overwrites `x`.

        The same as `project(x + size * steepest(gradient, x))` with the gradient of `loss_and_gradient`, in less time
        and memory: one forward and one backward pass a sample.
        """
        if self._points is not None or not is_cuttable(self._region):
            _, gradient = self.loss_and_gradient(x, loss)
            return climbed(self._region, gradient, x, size)
        check_like(x, self.clean)
        steps = [self._step(x, part, size, loss) for part in self._memory.parts(len(self._open))]
        if not steps:
            return x
        self._observe(*join_results([told for _, told in steps]))
        return steps[-1][0]

    def probe(
        self, x: Tensor, loss: Loss = None, *, given: Sequence[Tensor] = (), candidate: Candidate = True
    ) -> Probe:
        """Loss, gradient, success and prediction of each input: one forward and one backward pass a sample."""
        return self._probe(x, loss, given, candidate, None, keep_prediction=True)

    def logits_and_jacobian(
        self, x: Tensor, classes: Tensor, against: Tensor | None = None, *, candidate: Candidate = True
    ) -> tuple[Tensor, Tensor]:
        """Logits `[A, K]`, and the gradient of those of some classes, `[A, M, ...]`: one forward and M backward passes.

        classes: int64 `[A, M]`, for each sample. against: int64 `[A]`, a class whose logit is first taken off theirs.
        """
        check_like(x, self.clean)
        x = self._possible(x, candidate)

        def read(part: slice) -> tuple[Tensor, Tensor]:
            over = None if against is None else against[part]
            logits, jacobian, judgement = self._queries.jacobian(x[part], self._pieces[part].goal, classes[part], over)
            self._offer(x, part, judgement, candidate)
            return logits, jacobian

        pieces = [self._memory.within(part, read) for part in self._memory.parts(len(self._open))]
        nothing = (x.new_empty(0, 0), x.new_empty(0, classes.shape[1], *x.shape[1:]))
        logits, jacobian = join_results(pieces) if pieces else nothing
        return logits, jacobian

    def loss(
        self, x: Tensor, loss: Loss = None, *, given: Sequence[Tensor] = (), candidate: Candidate = True
    ) -> Tensor:
        """Per-sample loss `[A]`: one forward pass a sample."""

        def read(prediction: Any, goal: Any, part: slice) -> Tensor:
            return self._queries.loss_of(loss, prediction, goal, [one[part] for one in given])

        return self._query(x, read, candidate)

    def succeeded(self, x: Tensor, *, candidate: Candidate = True) -> Tensor:
        """Whether each `x` reaches the goal, bool `[A]`: one forward pass a sample."""
        share = self._query(
            x, lambda prediction, goal, _part: self._objective.succeeded(prediction, goal).float(), candidate
        )
        return share > 0.5

    def logits(self, x: Tensor, *, candidate: Candidate = True) -> Tensor:
        """The model's output `[A, K]`, for attacks on classifiers: one forward pass a sample."""
        return self._query(x, lambda prediction, _goal, _part: prediction, candidate)

    def submit(self, x: Tensor, *, together: bool = False) -> None:
        """Hand in final candidates, one for each open sample: one forward pass a sample.

        Where none succeeds the last one handed in is what the core re-checks and saves. together: they belong together,
        so all of them are, also where one does less than what is known.
        """
        self.succeeded(x)
        keep = self._ledger.keep_together if together else self._ledger.keep_last
        keep(self._open, self._possible(x, candidate=True))

    def drop_done(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The attack's own state `[A, ...]`, cut to the samples that are still open from now on."""
        done = self._ledger.done[self._open]
        if not bool(done.any()):
            return tensors
        keep = (~done).nonzero().squeeze(1)
        last, observed = self._last_search, len(self._open) // self._times
        self._open = self._open.index_select(0, keep)
        self._goal = take(self._goal, keep)
        self._region = self._region.select(keep)
        self._points = None if self._points is None else self._points.select(keep)
        self._rng = self._rng.select(keep)
        self._pieces = Pieces(self._open, self._goal, self._region)
        self.trace.keep(keep[keep >= last] - last, observed)
        return tuple(tensor.index_select(0, keep) for tensor in tensors)

    def stage(self, name: str) -> bool:
        """Begin a stage of a long attack; False where it is to be left out, because it was finished before a kill.

        Between two stages what was found is kept on disk, but nothing of the attack's own: it holds no tensors then.
        """
        self.drop_done()
        return self._stages.begin(name)

    def note(self, finding: Finding) -> None:
        """Something the attack noticed that bears on how far its number can be trusted; stored with the result."""
        self.notes.append(finding)

    def keep(self, name: str, value: Tensor) -> None:
        """Something the attack made for all samples, such as a patch: saved where adversarial inputs are."""
        self.kept.append((name, value.detach().clone()))

    # ------------------------------------------------------------ what the core asks afterwards

    @property
    def candidates(self) -> Tensor:
        """The candidate kept for each of the N samples of the unit; the clean input where there is none."""
        return self._ledger.best

    @property
    def claimed(self) -> Tensor:
        """Bool `[N]`: the samples that the attack has broken, by its own queries."""
        return self._ledger.broken

    @property
    def unmoved(self) -> Tensor:
        """Bool `[N]`: the samples for which no candidate but the clean input was ever handed in."""
        return self._ledger.unmoved

    # ------------------------------------------------------------ inside

    def _possible(self, x: Tensor, candidate: Candidate) -> Tensor:
        """Where attacks move between the points of a region: of a candidate the point nearest to it."""
        return x if self._points is None or candidate is False else self._points.project(x.clone())

    @property
    def _last_search(self) -> int:
        """Where the rows of the last of several searches begin."""
        return len(self._open) - len(self._open) // self._times

    def _query(self, x: Tensor, read: Callable[[Any, Any, slice], Tensor], candidate: Candidate) -> Tensor:
        check_like(x, self.clean)
        x = self._possible(x, candidate)
        with torch.inference_mode():
            results = [
                self._memory.within(part, lambda piece: (self._read(x, piece, read, candidate),))
                for part in self._memory.parts(len(self._open))
            ]
        # Joined, or copied, outside inference mode: its tensors cannot be written to.
        return torch.cat([result for (result,) in results]) if results else x.new_empty(0)

    def _read(self, x: Tensor, part: slice, read: Callable[[Any, Any, slice], Tensor], candidate: Candidate) -> Tensor:
        result, judgement = self._queries.read(
            rows_of(x, part), self._pieces[part].goal, lambda prediction, goal: read(prediction, goal, part)
        )
        self._offer(x, part, judgement, candidate)
        return result

    def _probe(
        self,
        x: Tensor,
        loss: Loss,
        given: Sequence[Tensor],
        candidate: Candidate,
        out: Tensor | None,
        *,
        keep_prediction: bool,
    ) -> Probe:
        check_like(x, self.clean)
        x = self._possible(x, candidate)
        predictions: list[Any] | None = [] if keep_prediction else None
        pieces = [
            self._memory.within(part, lambda piece: self._slope(x, piece, loss, given, candidate, predictions))
            for part in self._memory.parts(len(self._open))
        ]
        if not pieces:
            return Probe(x.new_empty(0), torch.empty_like(x), x.new_empty(0, dtype=torch.bool), None)
        losses, success, gradient = join_results(pieces, out)
        self._observe(losses, gradient)
        whole = torch.cat(predictions) if predictions and isinstance(predictions[0], Tensor) else None
        return Probe(losses, gradient, success > 0.5, whole)

    def _slope(
        self,
        x: Tensor,
        part: slice,
        loss: Loss,
        given: Sequence[Tensor] = (),
        candidate: Candidate = True,
        predictions: list[Any] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss `[B]`, success `[B]` and gradient `[B, ...]` of a batch; its prediction is added to `predictions`."""
        judged = predictions is not None or candidate is not False
        cut_given = [one[part] for one in given]
        slope, judgement = self._queries.slope(
            rows_of(x, part), self._pieces[part].goal, loss, cut_given, judged=judged
        )
        self._offer(x, part, judgement, candidate)
        if predictions is not None:
            predictions.append(slope.prediction)
        return slope.loss, judgement.success, slope.gradient

    def _step(self, x: Tensor, part: slice, size: float, loss: Loss) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All of `x`, with a step made in one batch, and what is to be observed of that."""
        losses, _, gradient = self._memory.within(part, lambda piece: self._slope(x, piece, loss))
        told = (losses, gradient.flatten(1).abs().amax(1, keepdim=True)) if self.trace.begins else (losses,)
        before = rows_of(x, part)
        after = climbed(self._pieces[part].region, gradient, before, size)
        if len(after) == len(x):
            return after, told
        if after is not before:
            before.copy_(after)
        return x, told

    def _observe(self, losses: Tensor, gradient: Tensor | None = None) -> None:
        """Of several searches side by side the last counts; gradient: needed where a search begins."""
        if last := self._last_search:
            losses, gradient = losses[last:], None if gradient is None else gradient[last:]
        self.trace.observe(losses, gradient)

    def _offer(self, x: Tensor, part: slice, judgement: Judgement, candidate: Candidate) -> None:
        if self._progress is not None:
            self._progress(self._ledger.unbroken, self._counter.forward_passes, self._counter.backward_passes)
        if candidate is False:
            return
        piece, offered, success, damage = self._pieces[part], rows_of(x, part), judgement.success, judgement.damage
        if self._setting.exact is not None:
            success = self._queries.confirmed(self._setting.exact, offered, piece.goal, success)
        self._ledger.note_moves(piece.rows, offered, piece.clean)
        if self.minimum_norm:
            damage = -piece.region.distance(offered)
        permitted = candidate[part] if isinstance(candidate, Tensor) else None
        self._ledger.offer(piece.rows, offered, success, damage, permitted)
