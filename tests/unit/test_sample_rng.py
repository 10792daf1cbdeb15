"""Sample-bound random numbers: the published generator, the distributions, and bit identity however they are asked."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from robustbench_lab.errors import UsageError
from robustbench_lab.sample_rng import SampleRng, philox4x32
from robustbench_lab.sample_rng import _inverse_normal_cdf as inverse_normal_cdf
from robustbench_lab.sample_rng import _log as log
from robustbench_lab.sample_rng import _midpoints as midpoints

CPU = torch.device("cpu")
DRAWS = {
    "uniform": lambda rng, shape, draw: rng.uniform(shape, draw),
    "normal": lambda rng, shape, draw: rng.normal(shape, draw),
    "exponential": lambda rng, shape, draw: rng.exponential(shape, draw),
    "integers": lambda rng, shape, draw: rng.integers(1000, shape, draw),
}
shapes = st.lists(st.integers(0, 5), min_size=0, max_size=3).map(tuple)
every_distribution = pytest.mark.parametrize("distribution", DRAWS)


def rng_of(count, seed=0, stream="pgd"):
    return SampleRng.for_samples(seed, stream, [f"sample-{i}" for i in range(count)], CPU)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    words = philox4x32(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in words) == expected


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(sorted(DRAWS)), shapes)
def test_a_sample_has_the_same_bits_in_every_batch_and_order(data, distribution, shape):
    count = data.draw(st.integers(1, 12))
    index = data.draw(st.lists(st.integers(0, count - 1), max_size=12))
    whole = DRAWS[distribution](rng_of(count), shape, "start")
    ids = [f"sample-{i}" for i in index]
    alone = DRAWS[distribution](SampleRng.for_samples(0, "pgd", ids, CPU), shape, "start")
    selected = DRAWS[distribution](rng_of(count).select(torch.tensor(index, dtype=torch.int64)), shape, "start")
    assert torch.equal(whole[index], alone)
    assert torch.equal(whole[index], selected)


@every_distribution
def test_numbers_do_not_change_when_a_draw_is_too_large_to_be_made_at_once(distribution):
    count, shape = 20, (3, 100, 100)
    whole = DRAWS[distribution](rng_of(count), shape, "a")
    for row in (0, 7, 19):
        assert torch.equal(
            whole[row : row + 1], DRAWS[distribution](rng_of(count).select(torch.tensor([row])), shape, "a")
        )


@every_distribution
def test_the_number_of_threads_changes_no_bit(distribution):
    before = torch.get_num_threads()
    numbers = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            numbers.append(DRAWS[distribution](rng_of(50), (3, 32, 32), "a"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*numbers)


@every_distribution
def test_a_shorter_draw_is_the_beginning_of_a_longer_one(distribution):
    short, long = (DRAWS[distribution](rng_of(3), (size,), "a") for size in (5, 21))
    assert torch.equal(short, long[:, :5])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_distribution
def test_a_gpu_gives_the_same_bits_as_the_cpu(distribution):
    ids = [f"sample-{i}" for i in range(50)]
    numbers = [
        DRAWS[distribution](SampleRng.for_samples(3, "pgd", ids, torch.device(device)), (3, 32, 32), "a").cpu()
        for device in ("cpu", "cuda")
    ]
    assert torch.equal(*numbers)


def test_a_mask_selects_like_its_indices():
    mask = torch.tensor([True, False, True])
    selected = rng_of(3).select(mask)
    assert len(selected) == 2
    assert torch.equal(selected.uniform((4,), "a"), rng_of(3).uniform((4,), "a")[[0, 2]])


def test_another_seed_stream_draw_or_sample_gives_unrelated_numbers():
    size = 4000
    base = rng_of(2).uniform((size,), "a")
    others = [
        base.flip(0),
        rng_of(2, seed=1).uniform((size,), "a"),
        rng_of(2, stream="fgsm").uniform((size,), "a"),
        rng_of(2).uniform((size,), "b"),
        rng_of(2, stream='pgd", "a').uniform((size,), ""),
    ]
    for other in others:
        assert float((other == base).double().mean()) < 0.01
        correlation = np.corrcoef(np.stack([other.flatten().numpy(), base.flatten().numpy()]))[0, 1]
        assert abs(correlation) < 4.5 / math.sqrt(2 * size)


def test_uniform_numbers_are_uniform_on_multiples_of_a_float32_step():
    numbers = rng_of(100).uniform((40, 25), "a")
    assert numbers.dtype == torch.float32
    assert numbers.shape == (100, 40, 25)
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert torch.equal(numbers * 2**24, (numbers * 2**24).round())
    assert stats.kstest(numbers.flatten().double().numpy(), "uniform").pvalue > 0.01


def test_normal_numbers_are_the_inverse_distribution_function_of_the_same_words_to_one_ulp():
    rng = rng_of(50)
    upper_31_bits = rng.integers(1 << 31, (4000,), "a").double().numpy()
    numbers = rng.normal((4000,), "a").numpy()
    possible = [special.ndtri((2 * upper_31_bits + lowest + 0.5) / 2**32).astype(np.float32) for lowest in (0, 1)]
    off = np.minimum(*(np.abs(numbers - answer) / np.spacing(np.abs(answer)) for answer in possible))
    assert off.max() <= 1
    assert stats.kstest(numbers.flatten(), "norm").pvalue > 0.01
    assert np.abs(numbers).max() > 4  # the tails were drawn from


def test_exponential_numbers_are_minus_the_logarithm_of_the_same_words_to_one_ulp():
    rng = rng_of(50)
    upper_31_bits = rng.integers(1 << 31, (4000,), "a").double().numpy()
    numbers = rng.exponential((4000,), "a").numpy()
    possible = [(-np.log((2 * upper_31_bits + lowest + 0.5) / 2**32)).astype(np.float32) for lowest in (0, 1)]
    off = np.minimum(*(np.abs(numbers - answer) / np.spacing(np.abs(answer)) for answer in possible))
    assert off.max() <= 1
    assert stats.kstest(numbers.flatten(), "expon").pvalue > 0.01


def test_the_logarithm_is_right_to_the_last_digits():
    words = torch.cat([torch.arange(0, 1 << 32, 1234567), (1 << 32) - (2 ** torch.arange(0, 31, 0.01)).long()])
    x = midpoints(words)
    assert log(x).numpy() == pytest.approx(np.log(x.numpy()), rel=1e-15, abs=1e-15)


def test_the_inverse_normal_distribution_function_is_right_to_fourteen_digits_up_to_the_last_word():
    words = torch.cat([torch.arange(0, 1 << 32, 1234567), (1 << 32) - (2 ** torch.arange(0, 31, 0.01)).long()])
    expected = special.ndtri((words.double().numpy() + 0.5) / 2**32)
    assert inverse_normal_cdf(midpoints(words)).numpy() == pytest.approx(expected, rel=2e-14)
    assert 6.33 < expected.max() < 6.34


@pytest.mark.parametrize("high", [2, 10, 1 << 31])
def test_integers_fill_their_range_evenly(high):
    numbers = rng_of(50).integers(high, (400,), "a").flatten()
    assert numbers.dtype == torch.int64
    assert int(numbers.min()) >= 0
    assert int(numbers.max()) < high
    tenths = np.bincount((numbers.double() / high * min(high, 10)).long().numpy(), minlength=min(high, 10))
    assert stats.chisquare(tenths).pvalue > 0.01


@pytest.mark.parametrize("high", [0, -3, (1 << 31) + 1])
def test_a_range_of_integers_that_cannot_be_drawn_is_refused(high):
    with pytest.raises(UsageError, match="high must be within 1 to"):
        rng_of(1).integers(high, (1,), "a")


@settings(deadline=None, max_examples=20)
@given(st.text(), st.text(), st.integers())
def test_any_id_stream_and_seed_will_do(sample_id, draw, seed):
    rng = SampleRng.for_samples(seed, draw, [sample_id, sample_id], CPU)
    first, second = rng.uniform((2,), draw)
    assert torch.equal(first, second)


def test_the_only_integer_below_one_is_zero():
    assert not rng_of(3).integers(1, (5,), "a").any()
