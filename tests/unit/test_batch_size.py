"""How many samples go through a model at once."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.passes.batch_size import MOST_ON_GPU, USED_SHARE, first_batch_size, fitting_batch_size

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
