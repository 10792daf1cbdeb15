"""Intervals, paired tests and ranks, against SciPy, exact enumeration and worked examples."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import UsageError
from robustbench_lab.statistics import (
    bootstrap_mean,
    clopper_pearson,
    garwood,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    rank_rows,
    tied_ranks,
    wider,
)

quickly = settings(deadline=None)
p_value_lists = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@st.composite
def tables(draw):
    """Rows on the same samples, some of them alike."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.sampled_from([1, 5, 40, 300]))
    rates = draw(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.55, 0.6, 0.9, 1.0]), min_size=1, max_size=8))
    return [generator.random(count) < rate for rate in rates]


# ---------------------------------------------------------------- Clopper-Pearson


@quickly
@given(st.integers(1, 5000), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_exact_interval_is_the_one_of_scipy(trials, data, confidence):
    successes = data.draw(st.integers(0, trials))
    estimate = clopper_pearson(successes, trials, confidence)
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert estimate.value == successes / trials
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("trials", [1, 2, 5, 13, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_exact_interval_covers_every_true_rate_often_enough(trials, confidence):
    intervals = [clopper_pearson(successes, trials, confidence) for successes in range(trials + 1)]
    for rate in np.linspace(0, 1, 1001):
        chances = stats.binom.pmf(np.arange(trials + 1), trials, rate)
        covered = [interval.low <= rate <= interval.high for interval in intervals]
        assert chances[covered].sum() >= confidence - 1e-12


def test_none_and_all_of_the_samples_have_one_sided_closed_forms():
    assert clopper_pearson(0, 50) == Estimate(0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 50)))
    assert clopper_pearson(50, 50) == Estimate(1.0, pytest.approx(0.025 ** (1 / 50)), 1.0)


@pytest.mark.parametrize(
    ("successes", "trials", "message"), [(0, 0, "at least one sample"), (3, 2, "cannot be"), (-1, 2, "cannot be")]
)
def test_a_rate_that_cannot_be_is_refused(successes, trials, message):
    with pytest.raises(UsageError, match=message):
        clopper_pearson(successes, trials)


# ---------------------------------------------------------------- Poisson


@quickly
@given(st.integers(0, 3000), st.integers(1, 500))
def test_the_exact_interval_of_a_count_is_that_of_the_chi_squared_distribution(events, units):
    estimate = garwood(events, units)
    assert estimate.value == events / units
    assert estimate.low * units == pytest.approx(stats.chi2.ppf(0.025, 2 * events) / 2 if events else 0.0, rel=1e-7)
    assert estimate.high * units == pytest.approx(stats.chi2.ppf(0.975, 2 * events + 2) / 2, rel=1e-7)


def test_no_event_in_so_many_units_has_the_closed_form():
    assert garwood(0, 50) == Estimate(0.0, 0.0, pytest.approx(-np.log(0.025) / 50))
    with pytest.raises(UsageError, match="ask for more samples"):
        garwood(0, 0)


def test_the_wider_of_two_intervals_covers_both():
    assert wider(Estimate(0.5, 0.4, 0.6), Estimate(0.1, 0.3, 0.55)) == Estimate(0.5, 0.3, 0.6)


# ---------------------------------------------------------------- bootstrap


def test_the_bootstrap_interval_of_many_values_is_the_normal_one():
    values = np.random.default_rng(0).gamma(2.0, size=2000)
    estimate = bootstrap_mean(values, resamples=4000, seed=1)
    error = values.std() / np.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_the_bootstrap_interval_of_two_values_is_that_of_all_their_resamples():
    """The mean of two draws from {0, 1} is 0, 1/2, 1 with chances 1/4, 1/2, 1/4."""
    assert bootstrap_mean([0.0, 1.0], confidence=0.4) == Estimate(0.5, 0.5, 0.5)
    assert bootstrap_mean([0.0, 1.0], confidence=0.6) == Estimate(0.5, 0.0, 1.0)


def test_the_seed_decides_the_bootstrap_interval():
    values = np.random.default_rng(0).normal(size=200)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_a_bootstrap_that_does_not_fit_in_memory_at_once_takes_every_resample(monkeypatch):
    monkeypatch.setattr("robustbench_lab.statistics._NUMBERS_AT_ONCE", 700)
    values = np.random.default_rng(0).normal(size=300)
    estimate = bootstrap_mean(values, resamples=1001)
    monkeypatch.undo()
    assert estimate == bootstrap_mean(values, resamples=1001)


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(UsageError, match="at least one value"):
        bootstrap_mean([])


# ---------------------------------------------------------------- McNemar


@quickly
@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 5))
def test_mcnemar_is_the_binomial_test_on_the_samples_that_differ(only_first, only_second, both):
    first = np.repeat([True, False, True, False], [only_first, only_second, both, both])
    second = np.repeat([False, True, True, False], [only_first, only_second, both, both])
    differing = only_first + only_second
    expected = stats.binomtest(only_first, differing).pvalue if differing else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(second, first) == mcnemar_exact(first, second)


def test_mcnemar_rejects_a_true_null_hypothesis_at_most_as_often_as_it_says():
    for differing in (1, 6, 11, 40):
        counts = np.arange(differing + 1)
        chances = stats.binom.pmf(counts, differing, 0.5)
        p_values = np.array([mcnemar_exact(np.arange(differing) < k, np.arange(differing) >= k) for k in counts])
        for alpha in (0.01, 0.05, 0.2):
            assert chances[p_values <= alpha].sum() <= alpha + 1e-12


def test_rows_on_different_numbers_of_samples_are_not_compared():
    with pytest.raises(UsageError, match="rows of 3 and 4 samples cannot be paired"):
        mcnemar_exact(np.ones(3, dtype=bool), np.ones(4, dtype=bool))


# ---------------------------------------------------------------- Holm


def test_holm_gives_the_worked_example():
    """0.005 * 4; 0.01 * 3; 0.03 * 2; 0.04 * 1, which may not fall below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@quickly
@given(p_value_lists)
def test_holm_keeps_the_order_and_lies_between_the_raw_p_values_and_bonferroni(p_values):
    raw, adjusted = np.array(p_values), holm(p_values)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, raw * len(raw))).all()
    order = np.argsort(raw)
    assert (np.diff(adjusted[order]) >= 0).all()


@quickly
@given(p_value_lists, st.sampled_from([0.01, 0.05, 0.3]))
def test_holm_rejects_what_stepping_down_by_hand_rejects(p_values, alpha):
    rejected = set()
    for step, index in enumerate(np.argsort(p_values)):
        if p_values[index] * (len(p_values) - step) > alpha:
            break
        rejected.add(int(index))
    assert {int(index) for index in np.flatnonzero(holm(p_values) <= alpha)} == rejected


def test_no_tests_have_no_p_values():
    assert holm([]).shape == (0,)


# ---------------------------------------------------------------- ranks


def symmetric(count, p_values):
    matrix = np.ones((count, count))
    for (first, second), p_value in p_values.items():
        matrix[first, second] = matrix[second, first] = p_value
    return matrix


def test_rows_are_compared_with_the_leader_of_their_rank():
    """Row 1 is tied with row 0, row 2 is not and leads rank 3; row 3 is tied with row 2, however it differs from 1."""
    p_values = symmetric(4, {(0, 2): 1e-4, (0, 3): 1e-4, (1, 3): 1e-4})
    assert tied_ranks([0.9, 0.8, 0.7, 0.6], p_values) == [1, 1, 3, 3]


def test_the_correction_counts_every_pair_of_the_table():
    """0.01 is below 0.05, but three pairs make it 0.03 and six make it 0.06."""
    three, six = (symmetric(count, dict.fromkeys([(0, 1)], 0.01)) for count in (3, 4))
    assert tied_ranks([0.9, 0.8, 0.7], three) == [1, 2, 2]
    assert tied_ranks([0.9, 0.8, 0.7, 0.6], six) == [1, 1, 1, 1]
    assert tied_ranks([0.9, 0.8, 0.7, 0.6], six, alpha=0.1) == [1, 2, 2, 2]


def test_rows_of_equal_score_share_a_rank_and_are_left_only_by_what_differs_from_all_of_them():
    leaders_agree = symmetric(3, {(0, 1): 1e-6, (0, 2): 1e-6, (1, 2): 1e-6})
    assert tied_ranks([0.9, 0.9, 0.5], leaders_agree) == [1, 1, 3]
    assert tied_ranks([0.9, 0.9, 0.5], symmetric(3, {(0, 2): 1e-6})) == [1, 1, 1]


@quickly
@given(tables(), st.randoms())
def test_the_order_in_which_rows_come_does_not_change_their_ranks(samples, random):
    scores = [float(row.mean()) for row in samples]
    ranks = rank_rows(scores, samples)
    order = list(range(len(samples)))
    random.shuffle(order)
    assert rank_rows([scores[i] for i in order], [samples[i] for i in order]) == [ranks[i] for i in order]


@quickly
@given(tables())
def test_ranks_are_competition_ranks_in_the_order_of_the_scores(samples):
    scores = [float(row.mean()) for row in samples]
    ranks = rank_rows(scores, samples)
    for (score, rank), (other, other_rank) in itertools.permutations(zip(scores, ranks, strict=True), 2):
        assert score < other or rank <= other_rank
    for rank in ranks:
        assert rank == 1 + sum(other < rank for other in ranks)


@quickly
@given(tables())
def test_a_copy_of_a_row_shares_its_rank(samples):
    rows = [*samples, samples[0]]
    ranks = rank_rows([float(row.mean()) for row in rows], rows)
    assert ranks[-1] == ranks[0]


def test_clearly_different_rows_have_ranks_of_their_own_and_hardly_different_ones_share():
    held = np.arange(1000)
    rows = [held < 900, held < 897, held < 500, held < 100]
    assert rank_rows([float(row.mean()) for row in rows], rows) == [1, 1, 3, 4]


def test_one_row_is_first_and_no_rows_have_no_ranks():
    assert rank_rows([0.3], [np.array([True, False])]) == [1]
    assert rank_rows([], []) == []


def test_the_paired_bootstrap_tells_shifted_rows_apart_and_no_equal_ones():
    generator = np.random.default_rng(0)
    common = generator.normal(0.5, 0.1, 999)
    rows = [common, common + 0.001, common.copy(), common + generator.normal(0, 0.1, 999)]
    p_values = paired_bootstrap(rows)
    assert (p_values == p_values.T).all()
    assert p_values[0, 1] == pytest.approx(2 / 1000)  # every resample agrees, however little the rows differ
    assert p_values[0, 2] == 1
    assert p_values[0, 3] > 0.3


def test_the_paired_bootstrap_uses_the_resamples_that_both_rows_have():
    values = np.arange(100.0)
    gaps = values.copy()
    gaps[::2] = np.nan
    p_values = paired_bootstrap([values, gaps + 1, values[:10] - 1])
    assert p_values[0, 1] == pytest.approx(2 / 51)
    assert p_values[0, 2] == pytest.approx(2 / 11)


def test_a_bias_that_only_replicates_have_tells_no_rows_apart():
    generator = np.random.default_rng(0)
    common = generator.normal(0.5, 0.1, 999)
    biased = common + 0.1 + generator.normal(0, 0.01, 999)
    assert paired_bootstrap([common, biased])[0, 1] < 0.01
    assert paired_bootstrap([common, biased], [0.5, 0.5])[0, 1] > 0.5
    assert paired_bootstrap([common, common + 0.1], [0.5, 0.4])[0, 1] < 0.01


@quickly
@given(st.integers(10, 500), st.integers(1, 2), st.integers(0, 10**6))
def test_a_few_samples_tell_no_rows_apart_whatever_the_resamples(samples, fewer, seed):
    """Moving the differences must not turn the resamples without those samples into ones that tell the rows apart."""
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(samples, np.full(samples, 1 / samples), 1000).astype(float)
    every, less = np.ones(samples), np.ones(samples)
    less[generator.choice(samples, fewer, replace=False)] = 0
    rows = [weights @ one / samples for one in (every, less)]
    assert paired_bootstrap(rows, [float(one.mean()) for one in (every, less)])[0, 1] > 0.05


@quickly
@given(st.integers(0, 1000))
def test_the_paired_bootstrap_of_means_agrees_with_the_z_test(seed):
    """Its p-value is about that of the z-test for a mean."""
    generator = np.random.default_rng(seed)
    differences = generator.normal(0, 1, 60)
    draws = generator.integers(0, 60, (400, 60))
    p_value = paired_bootstrap([differences[draws].mean(axis=1), np.zeros(400)])[0, 1]
    z = abs(differences.mean()) / (differences.std(ddof=1) / np.sqrt(60))
    assert p_value == pytest.approx(2 * stats.norm.sf(z), abs=0.2)


def test_many_rows_that_differ_clearly_are_not_tied_for_want_of_resamples():
    """With 1000 resamples no counted p-value is below 0.002, and twelve rows make 66 pairs."""
    generator = np.random.default_rng(0)
    samples = generator.normal(0, 1, (12, 200)) + np.arange(12)[:, None]
    draws = generator.integers(0, 200, (1000, 200))
    rows = [one[draws].mean(axis=1) for one in samples]
    scores = [float(one.mean()) for one in samples]
    assert tied_ranks(scores, paired_bootstrap(rows, scores)) == list(range(12, 0, -1))
    same = [one[draws].mean(axis=1) for one in samples - np.arange(12)[:, None]]
    assert tied_ranks([float(one.mean()) for one in same], paired_bootstrap(same)) == [1] * 12


def test_beyond_the_resamples_the_tail_is_that_of_the_z_test():
    generator = np.random.default_rng(1)
    differences = generator.normal(0.35, 1, 400)
    draws = generator.integers(0, 400, (1000, 400))
    p_value = paired_bootstrap([differences[draws].mean(axis=1), np.zeros(1000)])[0, 1]
    z = differences.mean() / (differences.std(ddof=1) / 20)
    assert p_value == pytest.approx(2 * stats.norm.sf(z), rel=0.9)
    assert p_value < 1e-6


def test_resamples_that_do_not_vary_say_no_more_than_their_number():
    rows = [np.full(1000, 0.3), np.full(1000, 0.1)]
    assert paired_bootstrap(rows)[0, 1] == pytest.approx(2 / 1001)
    assert paired_bootstrap([np.full(1000, np.inf), rows[1]])[0, 1] == pytest.approx(2 / 1001)


def test_few_samples_say_no_more_than_their_signs():
    generator = np.random.default_rng(2)
    differences = 1 + 0.01 * generator.normal(size=4)
    rows = [differences[generator.integers(0, 4, (1000, 4))].mean(axis=1), np.zeros(1000)]
    assert paired_bootstrap(rows)[0, 1] < 1e-6
    assert paired_bootstrap(rows, samples=4)[0, 1] == 2 / 2**4


def test_a_row_without_a_score_is_refused():
    with pytest.raises(UsageError, match="cannot be ranked"):
        rank_rows([float("nan"), 0.5], [np.array([True]), np.array([False])])


def test_statistics_need_no_torch():
    code = "import sys, robustbench_lab.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
