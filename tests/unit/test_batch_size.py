"""How many samples go through a model at once."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.passes.batch_size import (
    MOST_ON_GPU,
    USED_SHARE,
    BatchSize,
    first_batch_size,
    fitting_batch_size,
)

MEGABYTE = 1 << 20


@given(free=st.integers(1, 1 << 37), fixed=st.integers(0, 1 << 32), each=st.integers(1, 1 << 30))
def test_the_batch_is_the_largest_power_of_two_that_fits_by_the_measured_line(free: int, fixed: int, each: int) -> None:
    def needed(samples: int) -> int:
        return fixed + samples * each

    size = fitting_batch_size(free, (1, needed(1)), (4, needed(4)))
    assert size.bit_count() == 1
    assert size == 1 or needed(size) <= USED_SHARE * free * (1 + 1e-9)
    assert size == MOST_ON_GPU or needed(2 * size) > USED_SHARE * free * (1 - 1e-9)


def test_a_need_that_does_not_grow_sets_no_limit() -> None:
    assert fitting_batch_size(MEGABYTE, (1, MEGABYTE), (4, MEGABYTE)) == MOST_ON_GPU


def test_large_inputs_go_through_a_cpu_in_small_batches() -> None:
    sizes = [first_batch_size(torch.device("cpu"), values) for values in (64, 3 * 32 * 32, 3 * 224 * 224, 10**9)]
    assert sizes == [512, 256, 5, 1]


@given(samples=st.integers(0, 3000), size=st.integers(1, 300))
def test_batches_are_as_few_as_can_be_and_as_even(samples: int, size: int) -> None:
    parts = list(BatchSize(size).parts(samples))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(samples))
    lengths = [part.stop - part.start for part in parts]
    assert len(lengths) == -(-samples // size)
    assert all(length <= size for length in lengths)
    assert not lengths or max(lengths) - min(lengths) <= 1


def test_batches_that_follow_one_that_was_too_large_are_smaller() -> None:
    batches = BatchSize(8)
    parts = batches.parts(20)
    assert next(parts) == slice(0, 7)
    batches.size = 4
    assert list(parts) == [slice(7, 11), slice(11, 14), slice(14, 17), slice(17, 20)]
