"""Outcomes, sample ids and parameters survive the way into the database and back, bit by bit."""

import math
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save

from robustbench_lab.errors import StoreError
from robustbench_lab.records import Outcomes
from robustbench_lab.result_store.json_values import from_json, to_json
from robustbench_lab.result_store.packing import (
    BYTES_BESIDE,
    TIMES,
    pack_indices,
    pack_outcomes,
    pack_sample_ids,
    unpack_indices,
    unpack_outcomes,
    unpack_sample_ids,
)

NUMBER_TYPES = ["?", "<f2", "<f4", "<f8", ">f4", "<i2", "<i8", "u1", "<u8"]


@st.composite
def outcomes(draw: st.DrawFn) -> Outcomes:
    count = draw(st.integers(0, 40))

    def array(dtype: str) -> NDArray[Any]:
        shape = (count, *draw(st.lists(st.integers(1, 3), max_size=2)))
        return draw(arrays_of.arrays(dtype, shape))

    def flat(dtype: str) -> NDArray[Any]:
        return draw(arrays_of.arrays(dtype, count))

    names = st.one_of(st.text(max_size=8), st.sampled_from(["count", "robust", "bits/robust", "columns/x"]))
    columns = {name: array(draw(st.sampled_from(NUMBER_TYPES))) for name in draw(st.sets(names, max_size=4))}
    return Outcomes(flat("?"), flat("?"), flat("<f4"), columns)


def assert_identical(left: NDArray[Any], right: NDArray[Any]) -> None:
    assert left.shape == right.shape
    assert left.dtype == right.dtype.newbyteorder("=")
    assert left.tobytes() == right.astype(left.dtype).tobytes()  # NaN included


@given(outcomes())
def test_outcomes_come_back_bit_by_bit(given_outcomes: Outcomes) -> None:
    back = unpack_outcomes(pack_outcomes(given_outcomes), len(given_outcomes))
    assert_identical(back.clean_correct, given_outcomes.clean_correct)
    assert_identical(back.robust, given_outcomes.robust)
    assert_identical(back.distance, given_outcomes.distance)
    assert back.columns.keys() == given_outcomes.columns.keys()
    for name, column in given_outcomes.columns.items():
        assert_identical(back.columns[name], column)


def test_outcomes_that_are_views_of_other_arrays_come_back() -> None:
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    given_outcomes = Outcomes(
        clean_correct=np.array([True, False] * 4)[::2],
        robust=np.array([True, True, False, True, False])[:4],
        distance=wide[:, 2],
        columns={"transposed": wide.T[:4], "backwards": np.arange(4)[::-1]},
    )
    back = unpack_outcomes(pack_outcomes(given_outcomes), len(given_outcomes))
    np.testing.assert_array_equal(back.clean_correct, [True] * 4)
    np.testing.assert_array_equal(back.distance, [2, 8, 14, 20])
    np.testing.assert_array_equal(back.columns["transposed"], wide.T[:4])
    np.testing.assert_array_equal(back.columns["backwards"], [3, 2, 1, 0])


def test_ten_thousand_outcomes_take_less_than_100_kb() -> None:
    rng = np.random.default_rng(0)
    correct = rng.random(10_000) < 0.9
    robust = correct & (rng.random(10_000) < 0.5)
    equal = np.where(robust, np.nan, np.where(correct, 8 / 255, 0)).astype(np.float32)
    all_different = rng.random(10_000).astype(np.float32)
    assert len(pack_outcomes(Outcomes(correct, robust, equal))) < 10_000
    assert len(pack_outcomes(Outcomes(correct, robust, all_different))) < 50_000


def test_outcomes_of_the_wrong_length_are_refused() -> None:
    yes = np.ones(3, dtype=np.bool_)
    wrong = Outcomes(yes, yes, np.zeros(3, dtype=np.float32), {"score": np.zeros(2)})
    with pytest.raises(StoreError, match=r"'score' has shape \[2\] for 3 samples"):
        pack_outcomes(wrong)


@pytest.mark.parametrize("column", [np.array(["a", "b"]), np.array([{}, []], dtype=object), np.zeros(2, dtype="c16")])
def test_outcomes_that_are_no_numbers_are_refused(column: NDArray[Any]) -> None:
    yes = np.ones(2, dtype=np.bool_)
    with pytest.raises(StoreError, match="'label' is of type"):
        pack_outcomes(Outcomes(yes, yes, np.zeros(2, dtype=np.float32), {"label": column}))


@given(st.binary(max_size=60), st.integers(0, 300))
def test_damaged_bytes_are_refused(junk: bytes, cut: int) -> None:
    whole = pack_outcomes(Outcomes(np.ones(9, np.bool_), np.ones(9, np.bool_), np.zeros(9, np.float32)))
    for damaged in (junk, whole[: min(cut, len(whole) - 1)]):
        for unpack in (
            lambda packed: unpack_outcomes(packed, 9),
            unpack_sample_ids,
            lambda packed: unpack_indices(packed, 9),
        ):
            with pytest.raises(StoreError, match="damaged"):
                unpack(damaged)


def few(**also: NDArray[Any]) -> Outcomes:
    return Outcomes(np.ones(9, np.bool_), np.ones(9, np.bool_), np.zeros(9, np.float32), also)


BOMB = zlib.compress(bytes(200 << 20), 1)


@pytest.mark.parametrize(
    "unpack",
    [lambda: unpack_outcomes(BOMB, 9), lambda: unpack_sample_ids(BOMB), lambda: unpack_indices(BOMB, 9)],
    ids=["outcomes", "sample ids", "indices"],
)
def test_a_stranger_s_bytes_cannot_fill_the_memory(unpack: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match="damaged"):
            unpack()
        assert tracemalloc.get_traced_memory()[1] < 2 * (len(BOMB) * TIMES + BYTES_BESIDE)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("claimed", [8, 10, 1 << 45])
def test_outcomes_that_claim_to_be_of_other_samples_are_refused(claimed: int) -> None:
    tensors = load(zlib.decompress(pack_outcomes(few())))
    lying = zlib.compress(save({**tensors, "count": np.array([claimed])}))
    with pytest.raises(StoreError, match="damaged"):
        unpack_outcomes(lying, 9)
    short = zlib.compress(save({**tensors, "values/distance": np.zeros(8, np.float32)}))
    with pytest.raises(StoreError, match="damaged"):
        unpack_outcomes(short, 9)


def test_what_could_not_be_read_again_is_not_written() -> None:
    with pytest.raises(StoreError, match="bytes a sample"):
        pack_outcomes(few(wide=np.zeros((9, 1 << 20), np.float32)))
    with pytest.raises(StoreError, match="nearly all alike"):
        pack_sample_ids("x" * 10_000 + str(index) for index in range(1000))


@given(st.lists(st.text()))
def test_sample_ids_come_back(ids: list[str]) -> None:
    assert unpack_sample_ids(pack_sample_ids(ids)) == tuple(ids)


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_indices_come_back(indices: list[int]) -> None:
    assert unpack_indices(pack_indices(indices), len(indices)) == tuple(indices)


def test_ten_thousand_sample_ids_and_indices_take_less_than_30_kb() -> None:
    assert len(pack_sample_ids(map(str, range(10_000)))) < 30_000
    assert len(pack_indices(range(10_000))) < 200


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
KEYS = st.one_of(st.text(), st.sampled_from(["$tuple", "$float", "$mapping"]))
PARAMETERS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=12,
)


@given(PARAMETERS)
def test_parameters_come_back_with_their_types(value: Any) -> None:
    back = from_json(to_json(value))
    assert back == value
    assert repr(back) == repr(value)  # tells 1 from 1.0 and True, and a list from a tuple


def test_nan_comes_back() -> None:
    assert math.isnan(from_json(to_json(float("nan"))))


@pytest.mark.parametrize("value", [object(), {1: 2}, {"model": object()}, [b"x"], np.int64(3)])
def test_parameters_that_json_cannot_hold_are_refused(value: Any) -> None:
    with pytest.raises(StoreError, match="cannot be stored"):
        to_json(value)
