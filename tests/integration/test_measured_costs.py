"""Costs of models that were never seen: measured as soon as they run, and units cut anew by what was measured."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ExecutorSpec
from robustbench_lab.executors import ExecutionContext, UnitQueue
from robustbench_lab.hardware.device_slots import Slot, SlotRequest
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import make_plan
from robustbench_lab.problem_parts.attack_checkpoint import checkpoint_path
from robustbench_lab.records import Outcomes, UnitRecord, WorkUnit
from robustbench_lab.result_store import checkpoints_folder
from robustbench_lab.run_observer import UnitProgress
from robustbench_lab.scheduling import scheduler
from robustbench_lab.scheduling.pass_watch import PassWatch
from robustbench_lab.testing.simulated_slots import FakeClock, simulated_record

SAMPLES = 297
SECONDS = {"digits-cnn": 0.02, "digits-cnn-at": 2.0}
"""Of a sample, made up. The second is a thousand times what is guessed for such small inputs."""


@dataclass
class Simulated:
    """Evaluates nothing; its clock jumps to whatever happens next."""

    slots: int
    reports: tuple[float, ...] = ()
    """Seconds after the beginning of a unit, when it reports its progress."""
    clock: FakeClock = field(default_factory=FakeClock)
    given: list[tuple[float, Slot, WorkUnit]] = field(default_factory=list)
    name: str = "simulated"

    def find_slots(self, wanted: SlotRequest) -> tuple[Slot, ...]:
        return tuple(Slot(f"cpu:{index}", "cpu", 1) for index in range(self.slots))

    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        idle, order, events = list(context.slots), itertools.count(), []
        while True:
            for slot in list(idle):
                if unit := queue.take(slot):
                    idle.remove(slot)
                    self._tell(context, "unit_started", unit, slot)
                    self.given.append((self.clock.now, slot, unit))
                    seconds = SECONDS[unit.cell.model.name] * (unit.stop - unit.start)
                    for after in (*(one for one in self.reports if one < seconds), seconds):
                        heapq.heappush(events, (self.clock.now + after, next(order), slot, unit, after, seconds))
            if not events:
                return
            self.clock.now, _, slot, unit, after, seconds = heapq.heappop(events)
            record = finished(unit, slot, seconds)
            if after < seconds:
                passes = int(record.forward_passes * after / seconds)
                progress = UnitProgress(unit, slot, unit.stop - unit.start, 0, passes, 0)
                self._tell(context, "unit_progressed", progress)
            else:
                idle.append(slot)
                self._tell(context, "unit_finished", record, slot)
                yield record

    def _tell(self, context: ExecutionContext, event: str, *what: Any) -> None:
        for observer in context.observers:
            getattr(observer, event)(*what)


def finished(unit: WorkUnit, slot: Slot, seconds: float) -> UnitRecord:
    right, never = np.ones(unit.stop - unit.start, bool), np.full(unit.stop - unit.start, np.nan, np.float32)
    return replace(simulated_record(unit, slot, seconds), outcomes=Outcomes(right, right, never))


def plugin(executor: Simulated) -> object:
    class Plugin:
        __version__ = "1"

        @hookimpl
        def rbl_executors(self) -> list[ExecutorSpec]:
            return [ExecutorSpec(name="simulated", factory=lambda: executor, tasks=())]

    return Plugin()


def spec(folder: Path, **fields: Any) -> ExperimentSpec:
    usual = {"attacks": ["pgd(steps=10)"], "norms": ["linf"], "samples": SAMPLES, "executor": "simulated"}
    usual |= {"database": str(folder / "rbl.db"), "devices": ["cpu"]}
    return ExperimentSpec.from_flags(**{**usual, **fields})


def run(folder: Path, executor: Simulated, **fields: Any) -> Simulated:
    result = run_experiment(spec(folder, **fields), open_catalog(extra=[("fake", plugin(executor))]))
    assert all(record.status == "ok" for record in result.records)
    return executor


def sizes(made: Simulated, model: str) -> list[int]:
    return [unit.stop - unit.start for _, _, unit in made.given if unit.cell.model.name == model]


def test_a_model_that_is_far_slower_than_guessed_does_not_keep_the_run_waiting(tmp_path: Path) -> None:
    """Five cells on four slots: uncut, the last one would begin when the others end, and take as long again."""
    made = run(tmp_path, Simulated(4), models=["digits-cnn-at"], seeds=list(range(5)))
    assert made.clock.now <= 1.05 * 5 * SAMPLES * SECONDS["digits-cnn-at"] / 4
    assert sum(sizes(made, "digits-cnn-at")) == 5 * SAMPLES


def test_units_stay_as_long_as_a_long_run_allows(tmp_path: Path) -> None:
    """Of a run that is long by what was measured; by what was guessed, each would be cut into tenths."""
    made = run(tmp_path, Simulated(2), models=["digits-cnn-at"], seeds=list(range(40)))
    assert sizes(made, "digits-cnn-at") == [SAMPLES] * 40


def test_a_pass_is_measured_while_the_first_unit_of_a_model_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slot learns what the slow model takes; the other begins with it later, and gets less than a whole cell."""
    made = Simulated(2, reports=(1.0, 4.0))
    monkeypatch.setattr(scheduler, "PassWatch", partial(PassWatch, clock=made.clock))
    run(tmp_path, made, models=list(SECONDS), seeds=[0, 1])
    first, *others = sizes(made, "digits-cnn-at")
    assert first == SAMPLES
    assert others
    assert max(others) <= SAMPLES / 4
    assert made.clock.now == pytest.approx(2 * SAMPLES * sum(SECONDS.values()) / 2, rel=0.05)


def test_a_unit_that_a_killed_run_has_begun_is_not_cut_anew(tmp_path: Path) -> None:
    """Its checkpoint is of exactly these samples."""
    wanted = {"models": ["digits-cnn-at"], "seeds": [0, 1, 2]}
    folder = checkpoints_folder(str(tmp_path / "rbl.db"))
    folder.mkdir(parents=True)
    for cell in make_plan(spec(tmp_path, **wanted), open_catalog(extra=[("fake", plugin(Simulated(2)))])).cells:
        checkpoint_path(folder, cell.cell_id, 0, SAMPLES).touch()
    made = run(tmp_path, Simulated(2), **wanted)
    assert sizes(made, "digits-cnn-at") == [SAMPLES] * 3


def test_a_model_that_is_new_is_expected_to_be_as_fast_as_the_stored_ones(tmp_path: Path) -> None:
    """So its cells are cut by a measured pass from the start, though none of its own is stored."""
    run(tmp_path, Simulated(2), models=["digits-cnn-at"])
    made = run(tmp_path, Simulated(2), models=["digits-cnn"])
    assert max(sizes(made, "digits-cnn")) < SAMPLES / 4
