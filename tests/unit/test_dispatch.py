"""Which unit a free slot gets, on slots that are made up."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, Status, UnitRecord, WorkUnit
from robustbench_lab.scheduling import cutting
from robustbench_lab.scheduling.cutting import UnitSize, cut
from robustbench_lab.scheduling.dispatch import Dispatcher, Order
from robustbench_lab.scheduling.pending_units import Limits, PendingUnits
from robustbench_lab.scheduling.unit_costs import UnitCosts
from robustbench_lab.testing.example_results import example_cell
from robustbench_lab.testing.simulated_slots import FakeClock, Simulation, simulate, simulated_record

SAMPLES = 1000


def gpus(count: int) -> tuple[Slot, ...]:
    return tuple(Slot(f"cuda:{index}", f"cuda:{index}", 1) for index in range(count))


def cells(count: int, models: int, seed: int) -> dict[str, tuple[Cell, float]]:
    """Cell id to cell and seconds a sample; these differ by a factor of 100."""
    numbers = random.Random(seed)  # noqa: S311 (no secret)
    made = {}
    for index in range(count):
        cell = example_cell(model=f"model-{index % models}", attack=f"attack-{index // models}", samples=SAMPLES)
        cell = replace(cell, cell_id=f"cell-{index}", estimated_forward=100, estimated_backward=0)
        made[cell.cell_id] = cell, 10 ** numbers.uniform(-2, 0)
    return made


def units_of(mixed: dict[str, tuple[Cell, float]], slots: int) -> list[WorkUnit]:
    """Every tenth cell in one piece, as where an attack looks at all samples together."""
    total = sum(seconds * SAMPLES for _, seconds in mixed.values())
    made = []
    for index, (cell, seconds) in enumerate(mixed.values()):
        size = SAMPLES if index % 10 == 0 else UnitSize(0).fair(seconds, total, slots)
        made += cut(cell, [(0, SAMPLES)], size)
    return made


def run(
    count: int, slots: int, order: Order, *, loading_seconds: float = 0.0, seed: int = 0
) -> tuple[Simulation, float]:
    """A run whose costs are known in advance, and the least time it could take."""
    mixed = cells(count, max(1, count // 12), seed)

    def seconds(unit: WorkUnit) -> float:
        return mixed[unit.cell.cell_id][1] * (unit.stop - unit.start)

    class Known(UnitCosts):
        def seconds(self, unit: WorkUnit) -> float:
            return seconds(unit)

    units = units_of(mixed, slots)
    places, clock = gpus(slots), FakeClock()
    pending = PendingUnits(units, places, Known("cuda"), order, clock=clock)
    made = simulate(pending, places, seconds, clock=clock, loading_seconds=loading_seconds)
    models = {cell.model.identity for cell, _ in mixed.values()}
    work = sum(seconds(unit) for unit in units) + loading_seconds * len(models)
    return made, max(work / slots, *(seconds(unit) for unit in units))


@pytest.mark.parametrize("seed", range(5))
def test_eight_gpus_take_hardly_longer_than_the_least_time_for_500_mixed_cells(seed: int) -> None:
    made, least = run(500, 8, Order.COST, loading_seconds=5.0, seed=seed)
    assert made.seconds <= 1.05 * least


def test_a_slot_keeps_to_the_model_it_has_loaded() -> None:
    made, _ = run(500, 8, Order.COST)
    models = len({unit.cell.model.identity for _, unit in made.given})
    assert made.loads <= models + 5 * 8


def test_coverage_begins_with_the_cheapest_cells_and_ends_with_the_dearest() -> None:
    made, _ = run(100, 1, Order.COVERAGE)
    mixed = cells(100, 8, 0)
    costs = [mixed[unit.cell.cell_id][1] for _, unit in made.given]
    for earlier, later in pairwise(costs):
        assert later >= earlier / 2  # of like cost within a factor of two, in any order
    assert min(costs) >= costs[0] / 2


def table_cells(tables: dict[float, float], cells_each: int = 12) -> dict[str, tuple[Cell, float]]:
    """Cells of tables that differ in eps; eps to the mean cost of a sample, about which cells differ up to 9 times."""
    made = {}
    for index in range(cells_each):
        for eps, mean in tables.items():  # so that the plan's order is no table's
            cell = example_cell(model=f"model-{index % 3}", attack=f"attack-{index // 3}", eps=eps, samples=SAMPLES)
            made[cell.cell_id] = cell, mean * 3 ** (2 * index / (cells_each - 1) - 1)
    return made


def run_tables(mixed: dict[str, tuple[Cell, float]], slots: int) -> list[tuple[float, float]]:
    """The eps of each cell that is finished, and when, in that order."""

    def seconds(unit: WorkUnit) -> float:
        return mixed[unit.cell.cell_id][1] * (unit.stop - unit.start)

    class Known(UnitCosts):
        def seconds(self, unit: WorkUnit) -> float:
            return seconds(unit)

    places, clock = gpus(slots), FakeClock()
    pending = PendingUnits(units_of(mixed, slots), places, Known("cuda"), Order.COVERAGE, clock=clock)
    left = Counter(dict.fromkeys(mixed, SAMPLES))
    finished = []

    def ended(unit: WorkUnit, record: UnitRecord) -> None:
        assert pending.ended(unit.cell, record)
        left[unit.cell.cell_id] -= unit.stop - unit.start
        if not left[unit.cell.cell_id]:
            finished.append((unit.cell.eps, clock.now))

    simulate(pending, places, seconds, clock=clock, ended=ended)
    return finished


def test_coverage_finishes_one_table_after_another_the_cheapest_first() -> None:
    finished = [eps for eps, _ in run_tables(table_cells({0.1: 2.0, 0.2: 1.0, 0.3: 3.0}), 1)]
    assert finished == [0.2] * 12 + [0.1] * 12 + [0.3] * 12


@pytest.mark.parametrize("slots", [1, 4])
def test_coverage_has_a_whole_table_as_early_as_its_own_work_allows(slots: int) -> None:
    """No list order of a table's units alone on `slots` machines takes longer than Graham's bound."""
    mixed = table_cells({0.1: 1.0, 0.2: 1.1, 0.3: 1.2})
    cheapest = {cell_id: priced for cell_id, priced in mixed.items() if priced[0].eps == 0.1}
    work = sum(seconds * SAMPLES for _, seconds in cheapest.values())
    longest = max(mixed[unit.cell.cell_id][1] * (unit.stop - unit.start) for unit in units_of(mixed, slots))
    first_table = max(when for eps, when in run_tables(mixed, slots) if eps == 0.1)
    assert first_table <= work / slots + longest


def test_coverage_first_finishes_a_table_of_which_most_is_stored() -> None:
    large = [WorkUnit(example_cell(eps=0.1, seed=seed), 0, 10) for seed in range(9)]
    small = [WorkUnit(example_cell(eps=0.2, seed=seed), 0, 10) for seed in range(3)]
    slot, *_ = gpus(1)
    whole = Dispatcher([*large, *small], lambda _unit: 1.0, 1, Order.COVERAGE)
    assert [whole.take(slot) for _ in range(3)] == small
    rest = Dispatcher([*small, *large[7:]], lambda _unit: 1.0, 1, Order.COVERAGE)
    assert [rest.take(slot) for _ in range(2)] == large[7:]


def test_coverage_goes_on_to_the_next_best_table_where_cells_of_the_best_are_another_runs() -> None:
    sizes = {0.1: 9, 0.2: 2, 0.3: 5}
    units = {eps: WorkUnit(example_cell(eps=eps, samples=count), 0, count) for eps, count in sizes.items()}
    slot, *_ = gpus(1)
    dispatcher = Dispatcher(units.values(), lambda unit: float(unit.stop), 1, Order.COVERAGE)
    assert dispatcher.take(slot, lambda unit: unit is not units[0.2]) is units[0.3]


def test_a_unit_for_which_the_run_would_wait_goes_first_whatever_is_loaded() -> None:
    short = [WorkUnit(example_cell(model="a", seed=index), 0, 10) for index in range(8)]
    long = WorkUnit(example_cell(model="b"), 0, 10)
    slots = gpus(2)
    dispatcher = Dispatcher([*short, long], lambda unit: 10.0 if unit is long else 1.0, len(slots))
    assert dispatcher.take(slots[0]) is long


FATES = ("ok", "failed", "too large", "cancelled")


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_unit_is_given_out_exactly_once_whatever_happens(data: st.DataObject) -> None:
    """Failures, cancelled cells, corrected costs and memory that is short, in any order.

    Of a cell that has failed or was cancelled nothing more is given out.
    """
    slots = [Slot(f"cuda:{gpu}/{part}", f"cuda:{gpu}", 1) for gpu in range(2) for part in range(2)]
    units = _drawn_units(data)
    pending = PendingUnits(units, slots, UnitCosts("cuda"), data.draw(st.sampled_from(Order)))
    running: dict[Slot, WorkUnit] = {}
    given_out: list[WorkUnit] = []
    over: set[str] = set()
    while True:
        for slot in slots:
            if slot not in running and (unit := pending.take(slot)):
                assert unit.cell.cell_id not in over
                assert unit not in given_out
                given_out.append(unit)
                running[slot] = unit
        if not running:
            break
        unit, fate = _one_ends(data, running, pending)
        if fate == "again":
            given_out.remove(unit)  # and it comes once more, alone on its device
        elif fate != "ok":
            over.add(unit.cell.cell_id)
    assert {unit_key(unit) for unit in given_out} >= {unit_key(unit) for unit in units if unit.cell.cell_id not in over}


def _drawn_units(data: st.DataObject) -> list[WorkUnit]:
    units = []
    for index in range(data.draw(st.integers(1, 12))):
        cell = replace(example_cell(model=f"m{data.draw(st.integers(0, 3))}", seed=index), cell_id=f"cell-{index}")
        units += cut(cell, [(0, 10)], data.draw(st.integers(1, 10)))
    return units


def _one_ends(data: st.DataObject, running: dict[Slot, WorkUnit], pending: PendingUnits) -> tuple[WorkUnit, str]:
    slot = data.draw(st.sampled_from(sorted(running, key=lambda one: one.name)))
    unit, fate = running.pop(slot), data.draw(st.sampled_from(FATES))
    status = Status.OK if fate in ("ok", "cancelled") else Status.FAILED
    memory = 1.0 if fate == "too large" else data.draw(st.floats(0, 0.9))
    record = simulated_record(unit, slot, data.draw(st.floats(0, 100)), status=status, memory_share=memory)
    if not pending.ended(unit.cell, record):
        return unit, "again"
    if fate == "cancelled":
        pending.cancel([unit.cell.cell_id])
    elif fate != "ok":
        pending.drop(unit.cell.cell_id)
    return unit, fate


def unit_key(unit: WorkUnit) -> tuple[str, int, int]:
    return unit.cell.cell_id, unit.start, unit.stop


# ---------------------------------------------------------------- limits and memory


def test_a_model_that_needs_a_whole_gpu_runs_alone_on_it() -> None:
    slots = (Slot("cuda:0/0", "cuda:0", 1), Slot("cuda:0/1", "cuda:0", 1))
    large = [WorkUnit(example_cell(model="large", seed=seed), 0, 10) for seed in range(2)]
    small = [WorkUnit(example_cell(model="small", seed=seed), 0, 10) for seed in range(2)]
    pending = PendingUnits([*large, *small], slots, UnitCosts("cuda"))
    first = pending.take(slots[0])
    second = pending.take(slots[1])
    assert first is not None
    assert second is not None
    too_large = simulated_record(large[0], slots[0], 1.0, status=Status.FAILED, memory_share=1.0)
    assert pending.ended(large[0].cell, too_large) is False
    fine = simulated_record(small[0], slots[1], 1.0, memory_share=0.2)
    assert pending.ended(small[0].cell, fine) is True
    again = pending.take(slots[0])
    beside = pending.take(slots[1])
    assert again is not None
    if again.cell.model.label == "large":
        assert beside is None
    else:
        assert beside is None or beside.cell.model.label == "small"


def test_a_unit_that_finds_no_memory_alone_on_its_gpu_has_failed() -> None:
    slots = gpus(1)
    unit = WorkUnit(example_cell(), 0, 10)
    pending = PendingUnits([unit], slots, UnitCosts("cuda"))
    assert pending.take(slots[0]) == unit
    assert pending.ended(unit.cell, simulated_record(unit, slots[0], 1.0, status=Status.FAILED, memory_share=1.0))
    assert pending.take(slots[0]) is None


def test_after_the_hours_are_over_nothing_begins_and_it_is_said_once() -> None:
    clock, said = FakeClock(), []
    units = [WorkUnit(example_cell(seed=seed), 0, 10) for seed in range(5)]
    slots = gpus(1)
    pending = PendingUnits(units, slots, UnitCosts("cuda"), limits=Limits(hours=1), told=said.append, clock=clock)
    made = simulate(pending, slots, lambda _unit: 1500.0, clock=clock)
    assert len(made.given) == 3
    assert pending.take(slots[0]) is None
    assert said == [pending.stopped] == ["--max-hours 1 have passed"]


def test_cells_that_have_begun_are_finished_where_no_more_may_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "MOST_SAMPLES", 4)
    units = [unit for seed in range(5) for unit in cut(example_cell(seed=seed), [(0, 10)], 4)]
    slots = gpus(2)
    pending = PendingUnits(units, slots, UnitCosts("cuda"), limits=Limits(cells=2))
    made = simulate(pending, slots, lambda _unit: 1.0, clock=FakeClock())
    begun = Counter(unit.cell.cell_id for _, unit in made.given)
    assert sorted(begun.values()) == [3, 3]
    assert pending.stopped == "--max-cells 2 have begun"


def test_an_interruption_counts_although_a_limit_was_reached_before() -> None:
    units = [unit for seed in range(3) for unit in cut(example_cell(seed=seed), [(0, 10)], 4)]
    slots, said = gpus(1), []
    pending = PendingUnits(units, slots, UnitCosts("cuda"), limits=Limits(cells=1), told=said.append)
    assert pending.take(slots[0]) is not None
    pending.stop("Ctrl-C")
    assert pending.take(slots[0]) is None
    assert said == ["--max-cells 1 have begun", "Ctrl-C"]
    assert pending.stopped == "Ctrl-C"


def test_a_limit_that_leaves_nothing_out_says_nothing() -> None:
    slots = gpus(1)
    pending = PendingUnits([WorkUnit(example_cell(), 0, 10)], slots, UnitCosts("cuda"), limits=Limits(hours=1, cells=1))
    simulate(pending, slots, lambda _unit: 1.0, clock=FakeClock())
    pending.stop("Ctrl-C")
    assert pending.take(slots[0]) is None
    assert pending.stopped is None
