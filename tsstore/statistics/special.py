"""The mathematics of counts, to the last digits of a float64.

*Logarithms.* Entropy is the mean of ln(n / k) over the rows. Few rows make it too low, and several
estimators mend this by putting something smaller in the place of ln k. What is subtracted is the
correction of ln k, about 1 / (2 k); it is right to about 1e-14.

*What the states seen once and twice say of those not seen.* Good and Turing: the states seen once
stand in for the unseen ones. Chao and Jost (2012) turn that into one number, the share A of their
rows that would, after one more draw, not be new; both the coverage of the draws and the unseen part
of the entropy of Chao, Wang and Jost (2013) are written with it. A draw is a row, or a sample, as
the caller counts.

*Some of n things taken without replacement.* Rarefaction is this: of n draws, k of which gave a
state, m are kept. The textbook form is made of factorials whose logarithms are 1e14 and more for
n = 1e13, so that float64 has no digits left of their differences. Here Stirling's leading terms are
subtracted on paper; what remains is as small as the result.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsstore.statistics.spectrum import IntArray

FloatArray = npt.NDArray[np.float64]


def check_level(level: float) -> None:
    """Raise ValueError if a nominal confidence is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95: found {level}")


def log_ratio(total: float, k: FloatArray | IntArray) -> FloatArray:
    """Return ln(total / k), to the last digits also where k is nearly the total.

    The k, of shape (entries,), are parts of the total: above 0 and at most that. In nats.
    """
    ratios: FloatArray = -np.log(k / total)
    # Near 1 the ratio k / n has lost what tells it from 1; n - k has not.
    large = k > total / 2
    ratios[large] = -np.log1p(-(total - k[large]) / total)
    return ratios


def digamma_correction(k: npt.ArrayLike) -> FloatArray:
    """Return ln k - psi(k), which makes ln k Zhang's: 0.5772 for k = 1, for large k 1 / (2 k).

    k are whole numbers >= 1, or others above 0, of any shape; in nats.
    """
    from scipy.special import digamma

    x = np.asarray(k, dtype=np.float64)
    correction: FloatArray = np.log(x) - digamma(x)
    return correction


def grassberger_correction(k: npt.ArrayLike) -> FloatArray:
    """Return ln k - G_k with Grassberger's G_k = psi(floor(k / 2) + 1/2) + ln 2.

    In nats: 1.2704 for k = 1, about 1 / k for large odd k and -1 / (6 k**2) for even k. Grassberger
    2003, arXiv:physics/0307138, whose recursion over k is this closed form.
    """
    from scipy.special import digamma

    x = np.asarray(k, dtype=np.float64)
    correction: FloatArray = np.log(x / 2) - digamma(x // 2 + 0.5)
    return correction


def jackknife_correction(k: npt.ArrayLike) -> FloatArray:
    """Return 1 + (k - 1) ln(1 - 1 / k), by which the jackknife corrects ln k.

    In nats: 1 for k = 1, about 1 / (2 k) for large k. It is 1 + ln k less k ln k - (k - 1)
    ln(k - 1), which is what a row fewer takes from the sum of k ln k: the jackknife (Zahl 1977) in
    closed form.
    """
    x = np.asarray(k, dtype=np.float64)
    # The logarithm of 0 at k = 1 would stand beside a factor of 0.
    correction: FloatArray = 1 + (x - 1) * np.log1p(-1 / np.maximum(x, 2))
    return correction


DIRECT_ABOVE = 0.05
"""With a faster decay than this the terms of the tail die out within some hundreds."""

ASYMPTOTIC_FROM = 64
"""From this index on the Euler-Maclaurin correction is below the float's own precision."""

EULER_MACLAURIN = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600)
"""B_2/2!, B_4/4!, B_6/6!, B_8/8! with the Bernoulli numbers B."""


class Unseen(NamedTuple):
    """How fast further draws would use up what has not been seen.

    The decay a = -ln(1 - A) > 0: each further draw shrinks the unseen share by exp(-a); the share
    A, and the rest 1 - A, not rounded to 1 where A is small, nor to 0 where A is near 1.
    """

    decay: float
    share: float
    rest: float


def decay_of_unseen(draws: int, once: int, twice: int) -> Unseen | None:
    """Estimate how the unseen share shrinks from the states seen once and twice.

    Of n draws, f1 and f2 distinct states were seen in exactly one and exactly two:
    A = 2 f2 / ((n - 1) f1 + 2 f2), and 2 / ((n - 1)(f1 - 1) + 2) where f2 = 0 (Chao and Jost 2012,
    Ecology 93). None where that says nothing of unseen states: no state was seen once, one was and
    none twice, or there is a single draw.
    """
    # NumPy's integers would overflow in the product.
    n, f1, f2 = int(draws), int(once), int(twice)
    gain = 2 * f2 if f2 > 0 else 2
    loss = (n - 1) * (f1 if f2 > 0 else f1 - 1)
    if f1 == 0 or loss <= 0:
        return None
    return Unseen(math.log1p(gain / loss), gain / (loss + gain), loss / (loss + gain))


def tail_sum(draws: int, once: int, twice: int) -> float:
    """Return T, the entropy of the unseen states for each share f1/n of the draws, in nats.

    T = sum over j >= 1 of exp(-a j) / (n - 1 + j), a being the decay; 0 where `decay_of_unseen` is
    None. It is (1 - A)**(1 - n) (-ln A - sum over r < n of (1 - A)**r / r), the last factor of
    Chao, Wang and Jost (2013, Methods in Ecology and Evolution 4), as the series it is the rest of:
    all of its terms are positive, so that nothing cancels, and the relative error is about 1e-15 at
    any number of draws.
    """
    tail = decay_of_unseen(draws, once, twice)
    if tail is None:
        return 0.0
    if tail.decay > DIRECT_ABOVE:
        return _terms(tail.decay, draws, math.ceil(40 / tail.decay) + 5)
    start = max(draws, ASYMPTOTIC_FROM)
    head = _terms(tail.decay, draws, start - draws)
    return head + math.exp(-tail.decay * (start - draws + 1)) * _rest(tail.decay, start)


def scaled_exponential_integral(x: float) -> float:
    """Return exp(x) E1(x) for x > 0, where E1(x) alone would be too small for a float."""
    from scipy.special import exp1

    if x < 500:
        return math.exp(x) * float(exp1(x))
    series = 1.0
    for j in range(7, 0, -1):
        series = 1 - series * j / x
    return series / x


def _terms(decay: float, draws: int, count: int) -> float:
    return math.fsum(math.exp(-decay * j) / (draws - 1 + j) for j in range(1, count + 1))


def _rest(decay: float, start: int) -> float:
    """Return the sum over i >= 0 of exp(-decay i) / (start + i), by Euler and Maclaurin.

    The p-th derivative of its terms, in units of the first term, is (-1)**p D_p with D_0 = 1 and
    D_p = decay**p + D_(p-1) p / start.
    """
    derivatives = [1.0]
    for p in range(1, 2 * len(EULER_MACLAURIN)):
        derivatives.append(decay**p + derivatives[-1] * p / start)
    corrections = (b * d for b, d in zip(EULER_MACLAURIN, derivatives[1::2], strict=True))
    integral = scaled_exponential_integral(decay * start)
    return integral + (0.5 + math.fsum(corrections)) / start


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

    Of n things k are marked, of shape (entries,), and m taken: R(k, m, n) = ln [C(n - k, m) /
    C(n, m)], minus infinity where k + m > n. For k and m above 64, with a = n - k, b = n - m,
    c = n - k - m and s = Stirling's remainder,

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
    """Return ln x! - [(x + 1/2) ln x - x + ln(2 pi) / 2], about 1 / (12 x), for x >= 1.

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

    Of n things k, of shape (entries,), are marked, and m are taken, fewer than all. Numbers, int64
    (entries, nodes), are j from 0 to the smaller of k and m; nodes are about 30 for large standard
    deviations, never more than 190. Weights of an entry add up to 1, and the sum of weight * f(j)
    is the mean of f over the hypergeometric distribution for any f that is smooth on the scale of
    its standard deviation, and for every f where that is below 7.5.

    The probabilities are so smooth that a sum over every h-th number, times h, is that over all: by
    Poisson's summation formula the difference is about exp(-2 (pi s / h)**2) for a standard
    deviation s. Only their ratios are computed, from the deviances of the four cells of marked and
    others, taken and left (Loader 2000 does so for the binomial distribution).
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
