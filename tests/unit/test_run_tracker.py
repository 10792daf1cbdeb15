"""The account of a run: busy time, counts, and the time that is left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.hardware.device_slots import Slot, make_slots
from robustbench_lab.records import Cell, Status, UnitRecord, WorkUnit
from robustbench_lab.run_observer import UnitProgress
from robustbench_lab.testing.example_results import example_cell, example_gap, example_result
from robustbench_lab.tracking.run_tracker import RunTracker


class Clock:
    """Stands still unless it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def cell(samples: int, passes: int = 0, **what: object) -> Cell:
    return replace(example_cell(samples=samples, **what), estimated_forward=passes)  # type: ignore[arg-type]


def unit_record(unit: WorkUnit, status: Status = Status.OK, passes: int = 0) -> UnitRecord:
    return UnitRecord(
        cell_id=unit.cell.cell_id,
        start=unit.start,
        stop=unit.stop,
        status=status,
        reason=None if status is Status.OK else "why",
        outcomes=None,
        forward_passes=passes,
        backward_passes=0,
        wall_seconds=1.0,
        findings=(),
        device="cpu",
        batch_size=1,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(clock: Clock) -> RunTracker:
    return RunTracker(clock)


def test_a_slot_is_busy_from_the_beginning_of_a_unit_to_its_end(tracker: RunTracker, clock: Clock) -> None:
    first, second = make_slots(["cuda:0", "cuda:1"])
    one = cell(10)
    tracker.run_started("r1", [one], 3)
    tracker.slots_known([first, second])
    clock.now += 1
    unit = WorkUnit(one, 0, 10)
    tracker.unit_started(unit, first)
    clock.now += 2
    running = tracker.state()
    assert [slot.unit for slot in running.slots] == [unit, None]
    assert [slot.busy_seconds for slot in running.slots] == [2, 0]
    tracker.unit_finished(unit_record(unit, passes=70), first)
    clock.now += 5
    tracker.run_finished(False)
    clock.now += 100  # the account is closed
    state = tracker.state()
    assert [state.busy_share(slot) for slot in state.slots] == [2 / 8, 0]
    assert (state.units, state.passes, state.seconds, state.stored) == (1, 70, 8, 3)
    assert state.passes_per_second == 70 / 8
    assert state.seconds_left is None


def test_a_lost_worker_leaves_its_unit_to_be_done_and_its_slot_free(tracker: RunTracker, clock: Clock) -> None:
    (slot,) = make_slots(["cpu"])
    one = cell(10)
    tracker.run_started("r1", [one], 0)
    tracker.unit_started(WorkUnit(one, 0, 10), slot)
    clock.now += 3
    tracker.unit_retried(WorkUnit(one, 0, 10), slot, "killed")
    state = tracker.state()
    assert (state.retries, state.units, state.done) == (1, 0, 0)
    assert state.slots[0].unit is None
    assert state.slots[0].busy_seconds == 3


def test_cells_are_counted_by_how_they_ended(tracker: RunTracker) -> None:
    tracker.run_started("r1", [cell(2, model=name) for name in "abcd"], 0)
    tracker.cell_finished(example_result([True], model="a"))
    tracker.cell_finished(example_gap(Status.FAILED, "boom", model="b"))
    tracker.cell_finished(example_gap(Status.SKIPPED, "cancelled", model="c"))
    state = tracker.state()
    assert (state.ok, state.failed, state.skipped, state.done, state.to_do) == (1, 1, 1, 3, 4)
    assert state.document()["left"] == 1


def test_cells_of_other_runs_are_waited_for_and_counted_by_themselves(tracker: RunTracker) -> None:
    (slot,) = make_slots(["cpu"])
    tracker.run_started("r1", [cell(2, model=name) for name in "abc"], 0)
    tracker.run_waiting(2)
    assert tracker.state().waiting == 2
    tracker.cell_found(example_result([True], model="a"))
    tracker.unit_started(WorkUnit(cell(2, model="b"), 0, 2), slot)
    state = tracker.state()
    assert (state.waiting, state.found, state.done) == (0, 1, 0)
    assert state.document()["left"] == 2


def test_progress_counts_as_passes_of_the_run_until_the_unit_ends(tracker: RunTracker) -> None:
    (slot,) = make_slots(["cpu"])
    unit = WorkUnit(cell(10), 0, 10)
    tracker.run_started("r1", [unit.cell], 0)
    tracker.unit_started(unit, slot)
    tracker.unit_progressed(UnitProgress(unit, slot, 10, 7, 40, 20))
    state = tracker.state()
    assert state.passes == 60
    work = state.document()["slots"][0]["work"]
    assert (work["unbroken"], work["passes"], work["start"], work["stop"]) == (7, 60, 0, 10)
    tracker.unit_finished(unit_record(unit, passes=65), slot)
    assert tracker.state().passes == 65


# ---------------------------------------------------------------- time left


@given(
    costs=st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    samples=st.lists(st.integers(1, 50), min_size=6, max_size=6),
    slowness=st.floats(0.1, 10),
)
def test_with_one_slot_and_true_costs_the_time_left_is_exact_after_every_unit(
    costs: list[float], samples: list[int], slowness: float
) -> None:
    """Costs are right up to a common factor, which the tracker finds out."""
    clock, slot = Clock(), Slot("cpu", "cpu", 1)
    cells = [cell(count, model=f"m{index}") for index, (count, _) in enumerate(zip(samples, costs, strict=False))]
    price = {one.cell_id: cost for one, cost in zip(cells, costs, strict=True)}
    tracker = RunTracker(clock, price=lambda one: price[one.cell_id])
    tracker.run_started("r1", cells, 0)
    tracker.slots_known([slot])
    assert tracker.state().seconds_left is None
    seconds = [slowness * price[one.cell_id] * len(one.samples.sample_ids) for one in cells]
    for index, one in enumerate(cells):
        unit = WorkUnit(one, 0, len(one.samples.sample_ids))
        tracker.unit_started(unit, slot)
        clock.now += seconds[index]
        tracker.unit_finished(unit_record(unit), slot)
        tracker.cell_finished(replace(example_result([True]), cell=one))
        assert tracker.state().seconds_left == pytest.approx(sum(seconds[index + 1 :]), rel=1e-6, abs=1e-6)


def test_what_is_done_of_a_running_unit_counts(tracker: RunTracker, clock: Clock) -> None:
    (slot,) = make_slots(["cpu"])
    unit = WorkUnit(cell(10, passes=100), 0, 10)
    tracker.run_started("r1", [unit.cell], 0)
    tracker.slots_known([slot])
    tracker.unit_started(unit, slot)
    clock.now += 5
    tracker.unit_progressed(UnitProgress(unit, slot, 10, 10, 250, 0))  # a quarter of 1000
    assert tracker.state().seconds_left == pytest.approx(15)


def test_a_run_lasts_no_shorter_than_its_longest_unit(tracker: RunTracker, clock: Clock) -> None:
    slots = [Slot(f"cuda:{index}", f"cuda:{index}", 1) for index in range(4)]
    short, long = WorkUnit(cell(1, model="a"), 0, 1), WorkUnit(cell(20, model="b", passes=2), 0, 20)
    tracker.run_started("r1", [short.cell, long.cell], 0)
    tracker.slots_known(slots)
    tracker.unit_started(short, slots[0])
    clock.now += 1
    tracker.unit_finished(unit_record(short), slots[0])
    tracker.cell_finished(replace(example_result([True]), cell=short.cell))
    tracker.unit_started(long, slots[1])
    assert tracker.state().seconds_left == pytest.approx(20)
