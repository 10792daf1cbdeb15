"""What work units are expected to take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.records import Cell, Status, WorkUnit
from robustbench_lab.result_store import CellTiming
from robustbench_lab.scheduling.unit_costs import (
    GUESSED_PASSES,
    GUESSED_SECONDS,
    GUESSED_SECONDS_ELSEWHERE,
    GUESSED_VALUES,
    UnitCosts,
)
from robustbench_lab.testing.example_results import example_cell
from robustbench_lab.testing.simulated_slots import simulated_record

GPU = Slot("cuda:0", "cuda:0", 1)


def cell(passes: int = 40, **parts: str) -> Cell:
    return replace(example_cell(**parts), estimated_forward=passes // 2, estimated_backward=passes - passes // 2)


def timing(
    of: Cell, *, device: str = "cuda:1", samples: int = 100, passes: float = 2000, seconds: float = 50
) -> CellTiming:
    labels = (of.model.label, of.defense.label, of.dataset.label, of.attack.label, of.threat_model.label)
    return CellTiming(*labels, device, samples, passes, seconds)


def costs(*timings: CellTiming) -> UnitCosts:
    made = UnitCosts("cuda")
    made.learn(timings)
    return made


def test_with_nothing_measured_it_is_the_passes_of_the_attack() -> None:
    guess = GUESSED_SECONDS_ELSEWHERE * GUESSED_VALUES
    assert costs().seconds(WorkUnit(cell(40), 0, 10)) == pytest.approx(10 * 40 * guess)
    assert costs().seconds(WorkUnit(cell(0), 0, 10)) == pytest.approx(10 * GUESSED_PASSES * guess)


def test_passes_cost_by_the_size_of_the_inputs_where_that_alone_is_known() -> None:
    small, large = cell(dataset="small"), cell(dataset="large")
    made = UnitCosts("cpu", {"small": 64, "large": 6400})
    assert made.seconds_per_sample(small) == pytest.approx(40 * 64 * GUESSED_SECONDS["cpu"])
    assert made.seconds_per_sample(large) == pytest.approx(100 * made.seconds_per_sample(small))
    made.learn([timing(cell(dataset="small", model="other"), device="cpu", passes=2000, seconds=1)])
    assert made.seconds_per_sample(large) == pytest.approx(20 * 6400 / 64 / 2000)


def test_like_cells_that_are_stored_count_by_the_sample() -> None:
    assert costs(timing(cell())).seconds(WorkUnit(cell(), 5, 15)) == pytest.approx(10 * 50 / 100)


def test_stored_cells_of_another_kind_of_device_say_nothing() -> None:
    assert costs(timing(cell(), device="cpu")).seconds_per_sample(cell()) == costs().seconds_per_sample(cell())


def test_another_attack_on_the_same_model_costs_its_own_passes_at_the_speed_of_that_model() -> None:
    known = costs(timing(cell(), passes=2000, seconds=50), timing(cell(model="fast"), passes=2000, seconds=1))
    assert known.seconds_per_sample(cell(80, attack="other")) == pytest.approx(80 * 50 / 2000)
    assert known.seconds_per_sample(cell(80, attack="other", model="new")) == pytest.approx(80 * 51 / 4000)


def test_an_attack_takes_on_another_model_the_passes_that_it_took_on_the_first() -> None:
    known = costs(
        timing(cell(40), passes=2000, samples=100), timing(cell(model="b", attack="x"), passes=100, seconds=1)
    )
    assert known.seconds_per_sample(cell(40, model="b")) == pytest.approx(20 * 1 / 100)


def test_a_guess_is_corrected_by_the_first_unit_that_ends() -> None:
    known, unit = costs(), WorkUnit(cell(0), 0, 10)
    known.observe(unit.cell, simulated_record(unit, GPU, 30.0))
    assert known.seconds(unit) == pytest.approx(30.0)


def test_failed_units_say_nothing() -> None:
    known, unit = costs(), WorkUnit(cell(), 0, 10)
    known.observe(unit.cell, simulated_record(unit, GPU, 30.0, status=Status.FAILED))
    assert known.seconds(unit) == costs().seconds(unit)


def test_a_model_costs_on_other_data_its_own_pass_by_the_size_of_the_inputs() -> None:
    made = UnitCosts("cuda", {"small": 64, "large": 6400})
    made.learn([timing(cell(dataset="small", model="slow"), passes=2000, seconds=50)])
    made.learn([timing(cell(dataset="small", model="fast"), passes=2000, seconds=1)])
    slow = cell(40, dataset="large", model="slow", defense="jpeg", attack="other")
    assert made.seconds_per_sample(slow) == pytest.approx(40 * 100 * 50 / 2000)


def test_passes_of_a_unit_that_runs_count_until_one_has_ended() -> None:
    known, unit = costs(timing(cell(model="other"))), WorkUnit(cell(40), 0, 10)
    assert not known.knows_pass(unit.cell)
    known.glimpse(unit.cell, seconds=3.0, passes=30.0)
    assert known.knows_pass(unit.cell)
    assert known.seconds_per_sample(cell(40, attack="another")) == pytest.approx(40 * 0.1)
    known.observe(unit.cell, simulated_record(unit, GPU, 30.0))
    own = unit.cell.estimated_forward * 10
    assert known.seconds_per_sample(cell(40, attack="another")) == pytest.approx(40 * 30.0 / own)
