"""One process for each slot of this machine. One that dies or hangs costs its work unit, and nothing else."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any

from robustbench_lab.catalog.plugin_loading import PluginSource
from robustbench_lab.errors import RblError
from robustbench_lab.executors import ExecutionContext, UnitQueue, check_silence
from robustbench_lab.executors.messages import Began, Ended, Progressed, Ready, Setup, Task, Unusable
from robustbench_lab.executors.worker_process import CLOSING_SECONDS, Closed, WorkerProcess
from robustbench_lab.hardware.container_limits import cpu_quota
from robustbench_lab.hardware.device_slots import Slot, cpu_cores
from robustbench_lab.records import UnitRecord, WorkUnit, without_result
from robustbench_lab.run_observer import UnitProgress

TICK_SECONDS = 0.5
ATTEMPTS = 2
STARTING_SECONDS = 300.0
"""Without a sign of life, while a worker imports what it needs: from a busy network drive that takes a while."""
STARTS = 3
"""Workers that may end one after another before they have started."""


@dataclass(frozen=True)
class LocalExecutor:
    """Runs units in processes of their own."""

    silence: float = 300.0
    """Seconds without a sign of life after which a worker counts as hung. It gives one every second, as long as Python
    runs in it."""
    name: str = field(default="local", init=False)

    def __post_init__(self) -> None:
        check_silence(self.silence)

    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        """Records as units end."""
        crew = _Crew(queue, context, self.silence)
        try:
            yield from crew.work()
        finally:
            crew.dismiss()


@dataclass
class _Job:
    """A unit on a slot."""

    unit: WorkUnit
    attempt: int = 1
    began: float | None = None
    """None while its worker starts."""
    batch_divisor: int = 1


class _Crew:
    """The workers of one run, at most one a slot."""

    def __init__(self, queue: UnitQueue, context: ExecutionContext, silence: float) -> None:
        self._queue = queue
        self._context = context
        self._silence = silence
        self._inbox: SimpleQueue[tuple[WorkerProcess, Any]] = SimpleQueue()
        self._workers: dict[Slot, WorkerProcess] = {}
        self._jobs: dict[Slot, _Job] = {}
        # With a quota the machine's cores are shared with other containers, which would all begin with the first ones.
        self._cores = core_sets(context.slots, [] if cpu_quota() else cpu_cores())
        self._on_device = Counter(slot.device for slot in context.slots)
        self._failed_starts = 0

    def work(self) -> Iterator[UnitRecord]:
        """Until there is no unit for any slot."""
        while True:
            for slot in self._context.slots:
                if slot not in self._jobs and (unit := self._queue.take(slot)):
                    self._assign(slot, _Job(unit))
            if not self._jobs:
                return
            yield from self._listen()
            yield from self._look_for_hung_workers()

    def dismiss(self) -> None:
        """End all workers."""
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()

    # ------------------------------------------------------------ units out, records in

    def _assign(self, slot: Slot, job: _Job) -> None:
        self._jobs[slot] = job
        if slot not in self._workers:
            self._workers[slot] = WorkerProcess(self._setup(slot), self._cores.get(slot, ()), self._inbox)
        share = self._share(slot)
        options = replace(
            self._context.options,
            batch_limit=self._context.batches.limit(job.unit.cell, slot.kind, share),
            batch_divisor=job.batch_divisor,
            device_share=share,
        )
        self._workers[slot].send(Task(job.unit, options))

    def _share(self, slot: Slot) -> float:
        """Of its device's memory."""
        return 1 / self._on_device[slot.device]

    def _setup(self, slot: Slot) -> Setup:
        files = [one for one in self._context.catalog.plugins if one.source is PluginSource.FILE]
        versions = tuple(one.version for one in files)
        return Setup(os.getpid(), self._context.catalog.files, versions, slot.device, slot.threads)

    def _listen(self) -> Iterator[UnitRecord]:
        """Take in one message, if one comes soon."""
        try:
            worker, message = self._inbox.get(timeout=TICK_SECONDS)
        except Empty:
            return
        slot = next((slot for slot, one in self._workers.items() if one is worker), None)
        if slot is None:
            return  # of a worker that was given up
        worker.heard = time.monotonic()
        if isinstance(message, Ended):
            if not message.usable:
                self._workers.pop(slot).kill()
            yield self._ended(slot, message.record)
        elif isinstance(message, Closed):
            yield from self._lost(slot, worker.how_it_ended())
        else:
            self._note(slot, worker, message)

    def _note(self, slot: Slot, worker: WorkerProcess, message: Any) -> None:
        if isinstance(message, Unusable):
            raise RblError(message.reason)
        if isinstance(message, Ready):
            worker.ready, self._failed_starts = True, 0
        elif isinstance(message, Began):
            self._jobs[slot].began = time.monotonic()
            self._tell("unit_started", self._jobs[slot].unit, slot)
        elif isinstance(message, Progressed):
            unit = self._jobs[slot].unit
            numbers = (message.unbroken, message.forward_passes, message.backward_passes)
            self._tell("unit_progressed", UnitProgress(unit, slot, unit.stop - unit.start, *numbers))

    def _ended(self, slot: Slot, record: UnitRecord) -> UnitRecord:
        job = self._jobs.pop(slot)
        self._context.batches.learn(job.unit.cell, record, slot.kind, self._share(slot), job.batch_divisor)
        self._tell("unit_finished", record, slot)
        return record

    # ------------------------------------------------------------ faults

    def _look_for_hung_workers(self) -> Iterator[UnitRecord]:
        now, limit = time.monotonic(), self._context.unit_timeout
        for slot, worker in list(self._workers.items()):
            job = self._jobs.get(slot)
            if worker.ended and now - worker.heard > CLOSING_SECONDS:  # its children keep the pipe open
                yield from self._lost(slot, worker.how_it_ended())
            elif now - worker.heard > (silence := self._silence if worker.ready else STARTING_SECONDS):
                yield from self._lost(slot, f"worker gave no sign of life for {silence:g} s")
            elif limit is not None and job and job.began is not None and now - job.began > limit:
                yield from self._lost(slot, f"took longer than --unit-timeout {limit:g} s")

    def _lost(self, slot: Slot, reason: str) -> Iterator[UnitRecord]:
        """A worker is no more, or is given up: its unit is tried once more on a fresh one."""
        worker = self._workers.pop(slot)
        killed = worker.killed
        worker.kill()
        job = self._jobs.pop(slot, None)
        if job is None:
            return
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts == STARTS:
                raise RblError(f"workers do not start: {reason}. `--executor inline` runs everything in one process.")
            self._assign(slot, job)
        elif job.attempt < ATTEMPTS:
            self._tell("unit_retried", job.unit, slot, reason)
            self._assign(slot, _Job(job.unit, job.attempt + 1, batch_divisor=2 if killed else 1))
        else:
            seconds = time.monotonic() - job.began if job.began is not None else 0.0
            yield self._ended_badly(slot, job, reason, seconds)

    def _ended_badly(self, slot: Slot, job: _Job, reason: str, seconds: float) -> UnitRecord:
        record = without_result(job.unit, reason, slot.device, seconds)
        self._tell("unit_finished", record, slot)
        return record

    def _tell(self, event: str, *what: Any) -> None:
        for observer in self._context.observers:
            getattr(observer, event)(*what)


def core_sets(slots: Sequence[Slot], cores: Sequence[int]) -> dict[Slot, tuple[int, ...]]:
    """Cores of their own for the slots of the CPU; none where there are too few, or the platform cannot pin."""
    own = [slot for slot in slots if slot.device == "cpu"]
    if not hasattr(os, "sched_setaffinity") or sum(slot.threads for slot in own) > len(cores):
        return {}
    free = iter(cores)
    return {slot: tuple(itertools.islice(free, slot.threads)) for slot in own}
