"""Several runs that share cells: who is given which unit, on slots and claims that are made up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import WorkUnit
from robustbench_lab.result_store.claims import Claim
from robustbench_lab.scheduling.pending_units import PendingUnits
from robustbench_lab.scheduling.shared_cells import ASK_SECONDS
from robustbench_lab.scheduling.unit_costs import UnitCosts
from robustbench_lab.testing.example_results import example_cell
from robustbench_lab.testing.simulated_slots import FakeClock, simulated_record

DEAD = -1
SLOT = Slot("cpu", "cpu", 1)
CELLS = {cell.cell_id: cell for cell in (example_cell(seed=seed, samples=4) for seed in range(5))}


@dataclass
class Database:
    """What runs have claimed and stored."""

    holders: dict[str, int] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    units: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each half of a cell was evaluated to its end."""

    def claim(self, run: int, cell_id: str) -> Claim:
        if cell_id in self.stored:
            return Claim.STORED
        holder = self.holders.setdefault(cell_id, run)
        if holder not in {run, DEAD}:
            return Claim.ELSEWHERE
        self.holders[cell_id] = run
        return Claim.OURS if holder == run else Claim.INHERITED


class Run:
    """One that evaluates its cells in halves."""

    def __init__(self, number: int, database: Database, clock: FakeClock) -> None:
        self.number, self.database = number, database
        self.found: list[str] = []
        self.at: WorkUnit | None = None
        self.pending = PendingUnits(
            [unit for cell_id in CELLS for unit in self.missing(cell_id)],
            (SLOT,),
            UnitCosts("cpu"),
            clock=clock,
            claim=lambda cell_id: database.claim(number, cell_id),
            stored_elsewhere=self.found.append,
            inherited=self.missing,
        )

    def missing(self, cell_id: str) -> list[WorkUnit]:
        return [WorkUnit(CELLS[cell_id], at, at + 2) for at in (0, 2) if not self.database.units[cell_id, at]]

    def goes_on(self) -> None:
        """End the unit that runs, or begin one."""
        if self.at is None:
            self.at = self.pending.take(SLOT)
            return
        cell = self.at.cell
        self.database.units[cell.cell_id, self.at.start] += 1
        assert self.pending.ended(cell, simulated_record(self.at, SLOT, 1.0))
        if not self.missing(cell.cell_id):
            self.database.stored.add(cell.cell_id)
        self.at = None

    def is_over(self) -> bool:
        return self.at is None and not self.pending.waits_for() and not self.pending.has_units()

    def dies(self) -> None:
        """Its claims are void."""
        held = self.database.holders.items()
        self.database.holders = {cell: DEAD if run == self.number else run for cell, run in held}


@given(st.lists(st.integers(0, 2), max_size=60), st.sets(st.integers(0, 1)), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_each_unit_is_evaluated_once_by_one_of_the_runs_even_where_some_die(
    turns: list[int], victims: set[int], death: int
) -> None:
    database, clock = Database(), FakeClock()
    runs = [Run(number, database, clock) for number in range(3)]
    living = set(range(3))
    for turn, number in enumerate(turns):
        if turn == death:
            for victim in victims:
                runs[victim].dies()
            living -= victims
        clock.now += 0.5
        if number in living:
            runs[number].goes_on()
    while living:
        for number in sorted(living):
            runs[number].goes_on()
            if (
                runs[number].at is None
                and not runs[number].pending.waits_for()
                and not runs[number].pending.has_units()
            ):
                living.remove(number)
        clock.now += ASK_SECONDS
    assert database.stored == set(CELLS)
    assert set(database.units.values()) == {1}
    for run in runs:
        assert len(run.found) == len(set(run.found))


def test_a_run_says_how_many_cells_it_waits_for_only_while_nothing_else_is_left() -> None:
    database, clock = Database(), FakeClock()
    first, second = Run(0, database, clock), Run(1, database, clock)
    first.goes_on()
    assert first.at is not None
    claimed = first.at.cell.cell_id
    assert second.pending.waits_for() == 0
    while (unit := second.pending.take(SLOT)) is not None:
        assert unit.cell.cell_id != claimed
    assert (second.pending.waits_for(), second.pending.has_units()) == (1, True)
    second.pending.stop("enough")
    assert (second.pending.waits_for(), second.pending.has_units()) == (0, False)
    assert second.pending.stopped == "enough"


def test_a_cancelled_cell_is_waited_for_no_longer() -> None:
    database, clock = Database(), FakeClock()
    database.holders = dict.fromkeys(CELLS, 7)
    run = Run(0, database, clock)
    assert run.pending.take(SLOT) is None
    assert run.pending.waits_for() == len(CELLS)
    run.pending.cancel(CELLS)
    assert (run.pending.waits_for(), run.pending.has_units()) == (0, False)
