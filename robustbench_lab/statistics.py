"""Intervals, paired tests and ranks: what may be said about rows that were measured on the same samples."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_NUMBERS_AT_ONCE = 1 << 22
"""Resampled values held at a time: 32 MB."""
_ROUNDING = 1e-12
"""Two metrics that are nearer to each other are the same."""
_FEWEST_FOR_A_TAIL = 100
"""Resamples from which on their standard deviation is taken to be known."""


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """The share of successes with its exact interval: it covers the true rate with at least this confidence.

    Clopper & Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934).

    Raises:
        UsageError: there are no trials, so there is no share; or more successes than trials.
    """
    if trials < 1:
        raise UsageError("a rate needs at least one sample, and there is none: ask for more samples")
    if not 0 <= successes <= trials:
        raise UsageError(f"{successes} successes in {trials} trials cannot be: give a number from 0 to {trials}")
    from scipy import special

    tail = (1 - confidence) / 2
    low = special.betaincinv(successes, trials - successes + 1, tail) if successes > 0 else 0.0
    high = special.betainccinv(successes + 1, trials - successes, tail) if successes < trials else 1.0
    return Estimate(successes / trials, float(low), float(high))


def garwood(events: int, units: int, confidence: float = 0.95) -> Estimate:
    """The mean number of events a unit with its exact interval, where events are independent of each other (Poisson).

    Garwood, "Fiducial limits for the Poisson distribution", Biometrika 28 (1936).

    Raises:
        UsageError: there are no units.
    """
    if units < 1 or events < 0:
        raise UsageError(f"{events} events in {units} units have no mean: ask for more samples")
    from scipy import special

    tail = (1 - confidence) / 2
    low = special.gammaincinv(events, tail) if events > 0 else 0.0
    return Estimate(events / units, float(low) / units, float(special.gammainccinv(events + 1, tail)) / units)


def wider(estimate: Estimate, other: Estimate) -> Estimate:
    """The first one's value with what both intervals cover.

    No resample shows what no sample has: of a rate of 0 a bootstrap alone would be sure, an exact interval is not.
    """
    return Estimate(estimate.value, min(estimate.low, other.low), max(estimate.high, other.high))


def bootstrap_mean(values: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """The mean of values `[N]` with its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    The interval is too narrow for few values, and has no width for one; the same seed gives the same interval.

    Raises:
        UsageError: there are no values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    count = len(numbers)
    if count == 0:
        raise UsageError("a mean needs at least one value, and there is none: ask for more samples")
    generator = np.random.default_rng(seed)
    at_once = max(1, _NUMBERS_AT_ONCE // count)
    means = [
        numbers[generator.integers(count, size=(min(at_once, resamples - done), count))].mean(axis=1)
        for done in range(0, resamples, at_once)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Estimate(float(numbers.mean()), float(low), float(high))


def percentile_interval(value: float, replicates: NDArray[np.float64], confidence: float = 0.95) -> Estimate:
    """A value with the percentile interval of its bootstrap replicates `[R]`.

    It is widened to hold the value, since replicates can be biased a little. Replicates that do not exist (NaN) are
    left aside; a value that is not finite stands for itself.
    """
    known = replicates[~np.isnan(replicates)]
    if not np.isfinite(value) or not len(known):
        return Estimate(value, value, value)
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value))


def mcnemar_exact(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Two-sided exact p-value that two rows `[N]`, bool on the same samples, have the same rate.

    Given the samples on which the two differ, each is as likely to favour either: a binomial test on these. McNemar,
    "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12
    (1947); exact as in Mosteller, Biometrics 8 (1952).
    """
    return float(_mcnemar_matrix([first, second])[0, 1])


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values `[M]` of M tests, adjusted so that one below alpha is wrong with probability alpha over all of them.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    """
    raw = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(raw)
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def tied_ranks(scores: Sequence[float], p_values: NDArray[np.float64], alpha: float = 0.05) -> list[int]:
    """Ranks of R rows, 1 for the best, in which rows that cannot be told apart share one.

    Walk from the best score to the worst. A row starts a new rank when its Holm-corrected p-value against the leader
    of the current rank is below alpha, and leads it from then on; otherwise it shares the current rank. A new rank is
    1 + the number of better rows (1, 1, 3: competition ranking). Rows of equal score are one step of the walk: they
    share a rank, and all their p-values against the leader, or the leaders, have to be below alpha. So the order in
    which the rows are given does not matter.

    Sharing a rank means "not told apart from the leader": two other rows that share it may differ significantly.

    Args:
        scores: `[R]`, higher is better.
        p_values: `[R, R]`, symmetric: uncorrected p-values of the paired tests. The correction is over all pairs.
        alpha: the level of the whole table.
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise UsageError("a row without a score cannot be ranked: leave it out")
    pairs = np.triu_indices(len(values), k=1)
    corrected = np.ones((len(values), len(values)))
    corrected[pairs] = holm(p_values[pairs])
    corrected = np.minimum(corrected, corrected.T)
    ranks = np.zeros(len(values), dtype=np.int64)
    leaders: NDArray[np.int64] | None = None
    for score in np.unique(values)[::-1]:
        rows = np.flatnonzero(values == score)
        if leaders is None or corrected[np.ix_(leaders, rows)].max() < alpha:
            leaders = rows
        ranks[rows] = 1 + np.count_nonzero(values > values[leaders[0]])
    return [int(rank) for rank in ranks]


def rank_rows(scores: Sequence[float], samples: Sequence[NDArray[np.bool_]], alpha: float = 0.05) -> list[int]:
    """Ranks of R rows by score, tied as in `tied_ranks` by McNemar's exact test.

    Args:
        scores: `[R]`, higher is better: usually the means of `samples`.
        samples: R bool arrays `[N]`: whether the row holds on each of the same N samples.
        alpha: the level of the whole table.
    """
    return tied_ranks(scores, _mcnemar_matrix(samples), alpha)


def paired_bootstrap(
    replicates: Sequence[NDArray[np.float64]],
    values: Sequence[float] | None = None,
    samples: int | None = None,
) -> NDArray[np.float64]:
    """Two-sided p-values `[R, R]` of all pairs of R rows that their metrics are equal.

    Efron & Tibshirani 1993, chapter 16.

    Args:
        replicates: of each row the metric on resampled samples, `[B]`, the same resamples for all rows. Rows with fewer
            of them are compared on those. NaN stands for a resample on which the metric does not exist.
        values: the metric of each row on the samples themselves, `[R]`; differences on resamples are then moved so that
            their mean lies on the difference of the two, but for those that are 0: there the rows do the same. None:
            the metric's replicates have no bias.
        samples: how many were resampled. No p-value is then below `2**(1 - samples)`, the least that flipping the signs
            of so many differences can give.
    """
    least = 0.0 if samples is None else 2.0 ** (1 - samples)
    p_values = np.ones((len(replicates), len(replicates)))
    for one in range(len(replicates)):
        for other in range(one):
            common = min(len(replicates[one]), len(replicates[other]))
            difference = replicates[one][:common] - replicates[other][:common]
            difference = difference[~np.isnan(difference)]
            if values is not None and len(difference):
                moved = difference - difference.mean() + values[one] - values[other]
                difference = np.where(np.abs(difference) <= _ROUNDING, 0.0, moved)
            p_values[one, other] = p_values[other, one] = max(least, _two_sided(difference))
    return p_values


def _two_sided(difference: NDArray[np.float64]) -> float:
    """The p-value that a difference is 0, from its value on resamples `[B]`.

    Where all of them lie on one side, B limits what they can say, and the correction for many rows would leave
    everything tied: from eight rows on with 1000 resamples. There the tail is that of the normal distribution with the
    resamples' mean and standard deviation.
    """
    beyond = min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
    counted = min(1.0, 2 * (beyond + 1) / (len(difference) + 1))
    if beyond > 0 or len(difference) < _FEWEST_FOR_A_TAIL or not np.isfinite(difference).all():
        return counted
    mean, spread = abs(float(difference.mean())), float(difference.std(ddof=1))
    if spread <= 1e-9 * mean:  # rounding only, as of a single sample
        return counted
    return min(counted, math.erfc(mean / spread / math.sqrt(2)))


def _mcnemar_matrix(samples: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """McNemar's p-values `[R, R]` of all pairs of R rows `[N]`."""
    lengths = sorted({len(row) for row in samples})
    if len(lengths) > 1:
        raise UsageError(f"rows of {lengths[0]} and {lengths[-1]} samples cannot be paired: compare the same samples")
    held = np.array(samples, dtype=np.float64).reshape(len(samples), *lengths or [0])
    only_first = (held @ (1 - held).T).astype(np.int64)
    pairs = np.triu_indices(len(samples), k=1)
    first, second = only_first[pairs], only_first.T[pairs]
    p_values = np.ones(only_first.shape)
    p_values[pairs] = np.minimum(2 * _fair_coin_tail(np.minimum(first, second), first + second), 1.0)
    return np.minimum(p_values, p_values.T)


def _fair_coin_tail(heads: NDArray[np.int64], throws: NDArray[np.int64]) -> NDArray[np.float64]:
    """The probability of at most so many heads in so many throws of a fair coin, for heads up to half the throws.

    scipy's `bdtr` gives the same; importing it takes longer than all else that a leaderboard needs.
    """
    tails = np.empty(throws.size)
    counts, which, repeats = np.unique(throws, return_inverse=True, return_counts=True)
    ends = np.cumsum(repeats)
    order = np.argsort(which, axis=None, kind="stable")
    for count, places in zip(counts, np.split(order, ends)[:-1], strict=True):
        tails[places] = _tails_of(int(count))[heads.ravel()[places]]
    return tails.reshape(throws.shape)


@functools.lru_cache(maxsize=1024)
def _tails_of(throws: int) -> NDArray[np.float64]:
    """The probability of at most k heads, for k from 0 to half the throws."""
    k = np.arange(1, throws // 2 + 1)
    # The logarithm of each number of heads' probability: its ratio to the one before is (throws - k + 1) / k.
    logs = np.concatenate([[0.0], np.cumsum(np.log((throws - k + 1) / k))]) - throws * np.log(2)
    return np.cumsum(np.exp(logs))
