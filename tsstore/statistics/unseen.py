"""What the states seen once and twice say of the states not seen at all.

Good and Turing: the states seen once stand in for the unseen ones. Chao and Jost (2012) turn
that into one number, the share A of their rows that would, after one more draw, not be new; both
the coverage of the draws and the unseen part of the entropy of Chao, Wang and Jost (2013) are
written with it. A draw is a row, or a sample, as the caller counts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

DIRECT_ABOVE = 0.05
"""With a faster decay than this the terms of the tail die out within some hundreds."""

ASYMPTOTIC_FROM = 64
"""From this index on the Euler-Maclaurin correction is below the float's own precision."""

EULER_MACLAURIN = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600)
"""B_2/2!, B_4/4!, B_6/6!, B_8/8! with the Bernoulli numbers B."""


class Unseen(NamedTuple):
    """How fast further draws would use up what has not been seen.

    Attributes
    ----------
    decay
        a = -ln(1 - A), above 0: each further draw shrinks the unseen share by exp(-a).
    share
        A, above 0 and below 1.
    rest
        B = 1 - A, not rounded to 1 where A is small, nor to 0 where A is near 1.
    """

    decay: float
    share: float
    rest: float


def unseen(draws: int, once: int, twice: int) -> Unseen | None:
    """Estimate how the unseen share shrinks from the states seen once and twice.

    Parameters
    ----------
    draws
        n, how many draws there were.
    once, twice
        f1 and f2, how many distinct states were seen in exactly one and exactly two draws.

    Returns
    -------
    Unseen or None
        A = 2 f2 / ((n - 1) f1 + 2 f2), and 2 / ((n - 1)(f1 - 1) + 2) where f2 = 0. None where
        that says nothing of unseen states: no state was seen once, one was and none twice, or
        there is a single draw.

    Notes
    -----
    A. Chao and L. Jost, "Coverage-based rarefaction and extrapolation", Ecology 93 (2012);
    A. Chao, Y. T. Wang and L. Jost, Methods in Ecology and Evolution 4 (2013).
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

    Parameters
    ----------
    draws, once, twice
        As `unseen`.

    Returns
    -------
    float
        T = sum over j >= 1 of exp(-a j) / (n - 1 + j), a being the decay; 0 where `unseen` is
        None. The relative error is about 1e-15 at any number of draws.

    Notes
    -----
    It is (1 - A)**(1 - n) (-ln A - sum over r < n of (1 - A)**r / r), the last factor of Chao,
    Wang and Jost (2013), as the series it is the rest of: all of its terms are positive, so that
    nothing cancels.
    """
    tail = unseen(draws, once, twice)
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
