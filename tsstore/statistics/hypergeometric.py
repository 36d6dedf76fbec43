"""Some of n things taken without replacement: which of k marked ones are among m taken ones.

Rarefaction is this: of n draws, k of which gave a state, m are kept. The textbook form is made of
factorials whose logarithms are 1e14 and more for n = 1e13, so that float64 has no digits left of
their differences. Here Stirling's leading terms are subtracted on paper; what remains is as small
as the result.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tsstore.statistics.numerics import FloatArray
from tsstore.statistics.spectrum import IntArray

DIRECT = 64
"""Up to so many marked or taken things the product is taken factor by factor."""

STIRLING_FROM = 16
"""From here on the series of Stirling's remainder is exact to the last digits."""

STIRLING_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
"""Of Stirling's remainder in 1 / x, odd powers: B_2i / (2 i (2 i - 1))."""

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)

REACH = (9, 27)
"""Standard deviations on both sides of the mean, and what the longer tail of rare events adds:
by Bernstein's inequality less than 1e-17 lies beyond."""

STEPS = (1.5, 3)
"""Whole numbers are taken one by one up to a standard deviation of 7.5, then in steps of a
deviation / 1.5 - 3: sums over those, times the step, are those over all to within 1e-17."""


def log_avoidance(marked: IntArray, taken: int, things: int) -> FloatArray:
    """Return the logarithm of the probability that none of the marked things is taken.

    Parameters
    ----------
    marked
        k, int64 of shape (entries,), from 0 to things.
    taken
        m, from 0 to things.
    things
        n, how many there are.

    Returns
    -------
    float64 of shape (entries,)
        R(k, m, n) = ln [C(n - k, m) / C(n, m)], at most 0; minus infinity where k + m > n.

    Notes
    -----
    For k and m above 64, with a = n - k, b = n - m, c = n - k - m and s = Stirling's remainder,

        R = (c + 1/2) ln(1 + k m / (c n)) - m ln(1 + k / a) - k ln(1 + m / b)
            + s(a) + s(b) - s(c) - s(n).
    """
    result = np.full(marked.shape, -np.inf)
    possible = marked <= things - taken
    few = possible & (marked <= DIRECT)
    result[few] = _log_product(marked[few], taken, things)
    many = possible & ~few
    if taken <= DIRECT:
        result[many] = _log_product(taken, marked[many], things)
    elif many.any():
        result[many] = _log_avoidance_of_many(marked[many], taken, things)
    return result


def _log_product(few: npt.ArrayLike, many: npt.ArrayLike, things: int) -> FloatArray:
    """Multiply the shares that the many leave of n, n - 1, ..., n - few + 1 things."""
    few, many = np.broadcast_arrays(few, many)
    total = np.zeros(few.shape)
    for j in range(int(few.max(initial=0))):
        # Where the product is complete already the rest may be 0.
        rest = np.maximum(things - j - many, 1)
        total -= np.where(j < few, np.log1p(many / rest), 0.0)
    return total


def _log_avoidance_of_many(k: IntArray, m: int, n: int) -> FloatArray:
    c = n - k - m
    smooth = stirling_remainder(n - k) + stirling_remainder(n - m) - stirling_remainder(n)
    smooth -= m * np.log1p(k / (n - k)) + k * np.log1p(m / (n - m))
    product = k.astype(np.float64) * m / n
    rest = np.maximum(c, 1)
    left_over = (rest + 0.5) * np.log1p(product / rest) - stirling_remainder(rest)
    nothing_left = HALF_LOG_TWO_PI + 0.5 * np.log(product)
    return smooth + np.where(c > 0, left_over, nothing_left)


def stirling_remainder(x: npt.ArrayLike) -> FloatArray:
    """Return ln x! - [(x + 1/2) ln x - x + ln(2 pi) / 2], about 1 / (12 x).

    Parameters
    ----------
    x
        Whole numbers >= 1 of any shape.

    Notes
    -----
    From x = 16 on by its series (Abramowitz and Stegun 1964, 6.1.41).
    """
    from scipy.special import gammaln

    large = np.maximum(x, STIRLING_FROM).astype(np.float64)
    inverse_square = 1 / large**2
    series = np.zeros_like(large)
    for coefficient in reversed(STIRLING_SERIES):
        series = series * inverse_square + coefficient
    small = np.arange(1, STIRLING_FROM + 1)
    exact = gammaln(small + 1) - (small + 0.5) * np.log(small) + small - HALF_LOG_TWO_PI
    chosen = exact[np.minimum(x, STIRLING_FROM) - 1]
    return np.where(np.less(x, STIRLING_FROM), chosen, series / large)


def taken_marked(marked: IntArray, taken: int, things: int) -> tuple[IntArray, FloatArray]:
    """Return numbers of marked things among the taken ones, and weights to take means with.

    Parameters
    ----------
    marked
        k, int64 of shape (entries,), from 1 to things.
    taken
        m, from 1 to things - 1.
    things
        n, how many there are.

    Returns
    -------
    numbers
        int64 of shape (entries, nodes): j, from 0 to the smaller of k and m. Nodes are about 30
        for large standard deviations, never more than 190.
    weights
        float64 of the same shape; those of an entry add up to 1. The sum of weight * f(j) is the
        mean of f over the hypergeometric distribution for any f that is smooth on the scale of
        its standard deviation, and for every f where that is below 7.5.

    Notes
    -----
    The probabilities are so smooth that a sum over every h-th number, times h, is that over all:
    by Poisson's summation formula the difference is about exp(-2 (pi s / h)**2) for a standard
    deviation s.
    Only their ratios are computed, from the deviances of the four cells of marked and others,
    taken and left (Loader 2000 does so for the binomial distribution).
    """
    # The fewer of marked and others: what is left of n - k, or of m, is exact in either case.
    swapped = marked > things // 2
    k = np.where(swapped, things - marked, marked)[:, np.newaxis]
    mean, spread = _mean_and_spread(k, taken, things)
    step = np.maximum(1, spread / STEPS[0] - STEPS[1]).astype(np.int64)
    reach = REACH[0] * spread + REACH[1]
    least, most = np.maximum(0, taken + k - things), np.minimum(k, taken)
    first = np.maximum(least, (mean - reach).astype(np.int64))
    last = np.minimum(most, (mean + reach).astype(np.int64) + 1)
    j = first + step * np.arange(((last - first) // step).max() + 1)
    fits = j <= last
    j = np.minimum(j, last)
    logs = np.where(fits, _log_weights(j, mean, k, taken, things), -np.inf)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.where(swapped[:, np.newaxis], taken - j, j), weights


def _mean_and_spread(k: IntArray, m: int, n: int) -> tuple[FloatArray, FloatArray]:
    mean = k.astype(np.float64) * (m / n)
    variance = mean * ((n - m) / n) * ((n - k) / max(n - 1, 1))
    return mean, np.sqrt(variance)


def _log_weights(j: IntArray, mean: FloatArray, k: IntArray, m: int, n: int) -> FloatArray:
    """Return log probabilities, less something that is the same for all j of an entry."""
    excess = j - mean
    own, others = k.astype(np.float64), (n - k).astype(np.float64)
    left = (n - m) / n
    cells = (
        (j, mean, excess),
        (k - j, own * left, -excess),
        (m - j, others * (m / n), -excess),
        (n - k - m + j, others * left, excess),
    )
    return -sum(
        (
            _deviance(expected, surplus) + _half_log_factor(seen)
            for seen, expected, surplus in cells
        ),
        start=np.zeros(j.shape),
    )


def _half_log_factor(x: IntArray) -> FloatArray:
    """Return ln x! - (x ln x - x), less ln(2 pi) / 2; for 0 too."""
    least = np.maximum(x, 1)
    return np.where(x > 0, 0.5 * np.log(least) + stirling_remainder(least), -HALF_LOG_TWO_PI)


def _deviance(expected: FloatArray, surplus: FloatArray) -> FloatArray:
    """Return x ln(x / e) - (x - e) for x = e + surplus, without loss where x is nearly e."""
    e = np.where(expected > 0, expected, 1.0)
    u = np.maximum(surplus / e, -1.0)
    v = u / (2 + u)
    # ln(1 + u) = 2 artanh v, of which the first term gives u v in closed form.
    series = np.zeros_like(u)
    for odd in (15, 13, 11, 9, 7, 5, 3):
        series = series * v**2 + 1 / odd
    near = u * v + 2 * (1 + u) * v**3 * series
    # Where x is 0 its logarithm stands beside a factor of 0.
    far = (1 + u) * np.log1p(np.maximum(u, np.finfo(float).epsneg - 1)) - u
    return np.where(expected > 0, e * np.where(np.abs(u) < 0.1, near, far), 0.0)
