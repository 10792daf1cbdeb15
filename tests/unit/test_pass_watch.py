"""Passes of models that are new, measured while their first unit runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import WorkUnit
from robustbench_lab.run_observer import UnitProgress
from robustbench_lab.scheduling.pass_watch import PassWatch
from robustbench_lab.scheduling.unit_costs import UnitCosts
from robustbench_lab.testing.example_results import example_cell
from robustbench_lab.testing.simulated_slots import FakeClock, simulated_record

SLOT, OTHER = Slot("cuda:0", "cuda:0", 1), Slot("cuda:1", "cuda:1", 1)
UNIT = WorkUnit(replace(example_cell(), estimated_forward=40), 0, 10)


class Watched:
    """A watch on a made-up clock, and how often it has learned something."""

    def __init__(self) -> None:
        self.costs, self.clock, self.learned = UnitCosts("cuda"), FakeClock(), 0
        self.watch = PassWatch(self.costs, self._count, self.clock)

    def _count(self) -> None:
        self.learned += 1

    def progress(self, at: float, forward: int, backward: int = 0, slot: Slot = SLOT, unit: WorkUnit = UNIT) -> None:
        self.clock.now = at
        self.watch.unit_progressed(UnitProgress(unit, slot, 10, 10, forward, backward))


def test_what_comes_before_the_first_passes_does_not_count() -> None:
    """Loading took 100 seconds; then 200 passes, both ways, took 4."""
    watched = Watched()
    watched.watch.unit_started(UNIT, SLOT)
    watched.progress(100.0, 10)
    watched.progress(101.0, 30)
    assert watched.learned == 0
    watched.progress(104.0, 110, 100)
    assert watched.learned == 1
    assert watched.costs.seconds_per_sample(UNIT.cell) == pytest.approx(40 * 4.0 / 200)


def test_it_is_learned_once() -> None:
    watched = Watched()
    for second in range(20):
        watched.progress(float(second), 10 * second)
    assert watched.learned == 1


def test_a_model_that_has_ended_a_unit_is_known_already() -> None:
    watched = Watched()
    watched.costs.observe(UNIT.cell, simulated_record(UNIT, SLOT, 5.0))
    watched.progress(0.0, 0)
    watched.progress(9.0, 1)
    assert watched.learned == 0
    assert watched.costs.seconds(UNIT) == pytest.approx(5.0)


def test_units_and_slots_are_not_mixed_up() -> None:
    watched, next_unit = Watched(), WorkUnit(UNIT.cell, 10, 20)
    watched.progress(0.0, 1000)
    watched.progress(1.0, 0, slot=OTHER)
    watched.watch.unit_started(next_unit, SLOT)
    watched.progress(50.0, 10, unit=next_unit)
    assert watched.learned == 0
    watched.progress(52.0, 30, unit=next_unit)
    assert watched.costs.seconds_per_sample(UNIT.cell) == pytest.approx(40 * 2.0 / 20)


def test_a_unit_that_makes_no_passes_tells_nothing() -> None:
    watched = Watched()
    watched.progress(0.0, 50)
    watched.progress(9.0, 50)
    assert watched.learned == 0
