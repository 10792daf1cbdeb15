"""Samples to work units."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.scheduling import cutting
from robustbench_lab.scheduling.cutting import UnitSize, cut, cut_on_grid, disjoint, gaps
from robustbench_lab.testing.example_results import example_cell

RANGES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=12)


@given(count=st.integers(1, 50), ranges=RANGES, size=st.integers(1, 20))
def test_what_is_kept_and_what_is_cut_from_the_rest_cover_every_sample_once(
    count: int, ranges: list[tuple[int, int]], size: int
) -> None:
    kept = disjoint(ranges, [(0, count)])
    units = cut(example_cell(), gaps(count, kept), size)
    covered = [place for start, stop in kept for place in range(start, stop)]
    covered += [place for unit in units for place in range(unit.start, unit.stop)]
    assert sorted(covered) == list(range(count))
    assert set(kept) <= set(ranges)
    assert all(1 <= unit.stop - unit.start <= size for unit in units)


@given(first=RANGES, second=RANGES)
def test_a_second_list_of_ranges_is_fitted_into_what_the_first_leaves(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    kept = disjoint(first, [(0, 50)])
    more = disjoint(second, gaps(50, kept))
    places = [place for start, stop in kept + more for place in range(start, stop)]
    assert len(places) == len(set(places))


def test_pieces_of_one_range_differ_by_one_sample_at_most() -> None:
    sizes = {unit.stop - unit.start for unit in cut(example_cell(), [(0, 100)], 30)}
    assert sizes == {25}


def test_a_grid_does_not_depend_on_anything_but_its_size() -> None:
    assert [(one.start, one.stop) for one in cut_on_grid(example_cell(samples=10), 4)] == [(0, 4), (4, 8), (8, 10)]


def test_units_of_large_samples_are_small() -> None:
    photo = UnitSize(3 * 1024 * 1024 * 4)
    assert photo.fixed() == cutting.MOST_BYTES // (3 * 1024 * 1024 * 4) < cutting.MOST_SAMPLES
    assert UnitSize(cutting.MOST_BYTES * 2).fixed() == 1
    assert UnitSize(0).fixed() == cutting.MOST_SAMPLES


@given(st.floats(1e-6, 1e3), st.floats(1.0, 1e7), st.integers(2, 64))
def test_no_unit_that_could_be_smaller_takes_more_than_its_share_of_the_run(
    seconds: float, run_seconds: float, slots: int
) -> None:
    size = UnitSize(0).fair(seconds, run_seconds, slots)
    share = max(cutting.LEAST_SECONDS, run_seconds / slots / cutting.UNITS_A_SLOT)
    assert size == min(cutting.LEAST_SAMPLES, UnitSize(0).fixed()) or size * seconds <= share * (1 + 1e-9)


def test_one_slot_cuts_only_what_a_kill_should_not_lose() -> None:
    assert UnitSize(0).fair(0.1, 1e6, 1) == cutting.MOST_SAMPLES
    assert UnitSize(0).fair(10.0, 1e6, 1) == int(cutting.MOST_SECONDS / 10)
