"""The actors of a run: which unit each evaluates, what becomes of it, and what is done when one is lost.

What Ray is not asked to do is to retry: it would tie a lost unit to a new actor, for which a cluster that has lost a
node may have no room, and would not say why. So a lost unit goes to whichever actor is free, as often as with `local`.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from rbl_ray.node_worker import NodeWorker, Setup
from rbl_ray.placement import Placement
from robustbench_lab import __version__
from robustbench_lab.catalog.plugin_loading import DISABLE_VARIABLE
from robustbench_lab.errors import RblError, describe_error
from robustbench_lab.executors import ExecutionContext, UnitQueue
from robustbench_lab.executors.local import ATTEMPTS, STARTS
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import UnitRecord, WorkUnit, without_result
from robustbench_lab.run_observer import UnitProgress

TICK_SECONDS = 0.5
PATIENCE_SECONDS = 60.0
"""Without any worker, after which the run says what it waits for."""


@dataclass
class _Job:
    """A unit, and how often it was begun."""

    unit: WorkUnit
    attempt: int = 1
    batch_divisor: int = 1


@dataclass
class _Worker:
    """A slot's actor, as the run sees it."""

    actor: Any
    starting: Any
    """Reference to what `prepare` will return."""
    node: str | None = None
    """None while it starts, or waits for room."""
    job: _Job | None = None
    result: Any = None
    """Reference to the job's record."""
    answer: Any = None
    """Reference to its progress, asked for and not yet answered."""
    began: float = 0.0
    heard: float = 0.0
    asked: float = 0.0

    def expected(self) -> list[Any]:
        """References that something will come for."""
        every = (self.starting if self.node is None else None, self.result, self.answer)
        return [one for one in every if one is not None]


class Crew:
    """The actors of one run."""

    def __init__(
        self, queue: UnitQueue, context: ExecutionContext, plugins: tuple[tuple[str, bytes], ...], silence: float
    ) -> None:
        """plugins: single files, as `Setup` has them. silence: seconds without an answer after which one is hung."""
        self._queue = queue
        self._context = context
        self._silence = silence
        self._plugins = plugins
        self._placement = Placement(context.slots)
        self._workers: dict[Slot, _Worker] = {}
        self._again: deque[_Job] = deque()
        self._failed_starts = 0

    def work(self) -> Iterator[UnitRecord]:
        """Until there is no unit for any slot."""
        first = self._queue.take(self._context.slots[0])
        if first is None:
            return
        self._again.append(_Job(first))
        for slot in self._context.slots:
            self._start(slot)
        waiting_since = time.monotonic()
        while True:
            self._hand_out()
            if any(worker.job for worker in self._workers.values()):
                waiting_since = time.monotonic()
            elif not self._again and any(worker.node for worker in self._workers.values()):
                return
            elif time.monotonic() - waiting_since > PATIENCE_SECONDS:
                needs = self._placement.needs(self._context.slots[0])
                text = f"no worker on the Ray cluster is ready yet: each needs {needs}, or still loads its libraries"
                warnings.warn(text, stacklevel=2)
                waiting_since = float("inf")
            yield from self._listen()
            yield from self._look_for_hung_workers()

    def dismiss(self) -> None:
        """End all actors, and give back their room."""
        with suppress(RayError):
            for worker in self._workers.values():
                ray.kill(worker.actor)
            self._placement.release()
        self._workers.clear()

    # ------------------------------------------------------------ actors

    def _start(self, slot: Slot) -> None:
        plugins, disabled = self._plugins, os.environ.get(DISABLE_VARIABLE, "")
        setup = Setup(__version__, str(Path.cwd()), plugins, disabled, slot.kind, slot.device, slot.threads)
        # Two calls at once: a unit, and how far it is.
        remote: Any = ray.remote(NodeWorker)
        actor = remote.options(max_concurrency=2, **self._placement.options(slot)).remote(setup)
        self._workers[slot] = _Worker(actor, actor.prepare.remote())

    # ------------------------------------------------------------ units out, records in

    def _hand_out(self) -> None:
        """Only actors that are in place get units: another may wait for room until the others have ended."""
        for slot, worker in self._workers.items():
            if worker.node is not None and worker.job is None and (job := self._next_job(slot)):
                self._assign(slot, worker, job)

    def _next_job(self, slot: Slot) -> _Job | None:
        if self._again:
            return self._again.popleft()
        unit = self._queue.take(slot)
        return _Job(unit) if unit else None

    def _assign(self, slot: Slot, worker: _Worker, job: _Job) -> None:
        options = self._context.options
        options = replace(
            options,
            batch_limit=self._context.batches.limit(job.unit.cell, slot.kind, self._placement.share(slot)),
            batch_divisor=job.batch_divisor,
            device_share=self._placement.share(slot),
            checkpoints=options.checkpoints.absolute() if options.checkpoints else None,
        )
        worker.job, worker.began = job, time.monotonic()
        worker.heard = worker.asked = worker.began
        worker.result = worker.actor.evaluate.remote(job.unit, options)
        self._tell("unit_started", job.unit, slot)

    def _listen(self) -> Iterator[UnitRecord]:
        """Take in what comes soon."""
        self._ask_for_progress()
        expected = [one for worker in self._workers.values() for one in worker.expected()]
        if not expected:
            time.sleep(TICK_SECONDS)
            return
        ready, _ = ray.wait(expected, num_returns=1, timeout=TICK_SECONDS, fetch_local=False)
        if ready:
            ready, _ = ray.wait(expected, num_returns=len(expected), timeout=0, fetch_local=False)
        for reference in ready:
            # An actor may have been replaced by what was taken in before.
            for slot, worker in list(self._workers.items()):
                if reference in worker.expected():
                    yield from self._take_in(slot, worker, reference)

    def _take_in(self, slot: Slot, worker: _Worker, reference: Any) -> Iterator[UnitRecord]:
        try:
            value = ray.get(reference)
        except RayError as error:
            if isinstance(error, RayTaskError) and isinstance(error.cause, RblError):
                raise RblError(str(error.cause)) from error
            yield from self._lost(slot, _why(error, worker.node), killed=not isinstance(error, ActorUnavailableError))
            return
        worker.heard = time.monotonic()
        if reference == worker.result:
            yield self._ended(slot, worker, value)
        elif reference == worker.answer:
            worker.answer = None
            self._tell_progress(slot, worker, value)
        else:
            worker.node, self._failed_starts = value, 0

    def _ended(self, slot: Slot, worker: _Worker, record: UnitRecord) -> UnitRecord:
        assert worker.job is not None  # noqa: S101 (its result has come)
        job, share = worker.job, self._placement.share(slot)
        self._context.batches.learn(job.unit.cell, record, slot.kind, share, job.batch_divisor)
        worker.job = worker.result = None
        self._tell("unit_finished", record, slot)
        return record

    def _ask_for_progress(self) -> None:
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.job and worker.answer is None and now - worker.asked >= TICK_SECONDS:
                worker.answer, worker.asked = worker.actor.progress.remote(), now

    def _tell_progress(self, slot: Slot, worker: _Worker, numbers: tuple[int, int, int]) -> None:
        if worker.job:
            unit = worker.job.unit
            self._tell("unit_progressed", UnitProgress(unit, slot, unit.stop - unit.start, *numbers))

    # ------------------------------------------------------------ faults

    def _look_for_hung_workers(self) -> Iterator[UnitRecord]:
        now, limit = time.monotonic(), self._context.unit_timeout
        for slot, worker in list(self._workers.items()):
            if worker.job is None:
                continue
            if now - worker.heard > self._silence:
                yield from self._lost(slot, f"worker gave no sign of life for {self._silence:g} s")
            elif limit is not None and now - worker.began > limit:
                yield from self._lost(slot, f"took longer than --unit-timeout {limit:g} s")

    def _lost(self, slot: Slot, reason: str, *, killed: bool = False) -> Iterator[UnitRecord]:
        """An actor is no more, or is given up: its slot gets a new one, its unit the next that is free.

        killed: perhaps because memory ran out, so that the unit is tried with half the batch.
        """
        worker = self._workers.pop(slot)
        with suppress(RayError):
            ray.kill(worker.actor)
        if worker.node is None:
            self._failed_starts += 1
            if self._failed_starts == STARTS:
                raise RblError(
                    f"workers do not start: {reason}. Every node needs robustbench-lab[ray] as it is here, and the "
                    "same RAY_AUTH_MODE and token."
                )
        self._start(slot)
        if (job := worker.job) is None:
            return
        if job.attempt < ATTEMPTS:
            self._tell("unit_retried", job.unit, slot, reason)
            self._again.append(_Job(job.unit, job.attempt + 1, batch_divisor=2 if killed else 1))
        else:
            record = without_result(job.unit, reason, slot.device, time.monotonic() - worker.began)
            self._tell("unit_finished", record, slot)
            yield record

    def _tell(self, event: str, *what: Any) -> None:
        for observer in self._context.observers:
            getattr(observer, event)(*what)


def _why(error: RayError, node: str | None) -> str:
    """In one line; Ray's own text is a page."""
    place = f"worker on {node}" if node else "worker"
    if isinstance(error, RayTaskError):
        return f"{place} failed: {describe_error(error.cause)}"
    if isinstance(error, ActorUnavailableError):
        return f"{place} was lost: its node cannot be reached"
    said = re.search(r"The actor is dead because (.+?)[.\n]", str(error))
    return f"{place} was lost: {said[1] if said else describe_error(error)}"
