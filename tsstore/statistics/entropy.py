"""Entropies of what was counted, in bits, plug-in and unbiased, of any order, and their cap."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tsstore.statistics.richness import Draws
from tsstore.statistics.special import FloatArray, log_ratio
from tsstore.statistics.spectrum import Spectrum


def plug_in(spectrum: Spectrum, alpha: float = 1.0) -> float:
    """Return the Rényi entropy of the observed shares k / n, in bits (Rényi 1961).

    Order 0 gives log2 of the number of distinct states, 1 the Shannon entropy, 2 the collision
    entropy, infinity the min-entropy: larger orders weigh frequent states more. The shares are
    taken for the probabilities, so that the Shannon value is too low on average (Miller 1955).
    ValueError if alpha is negative or NaN, or the spectrum has no rows.
    """
    k, states = spectrum.multiplicities()
    return _renyi(k.astype(np.float64), states.astype(np.float64), alpha)


def entropy(counts: npt.ArrayLike, alpha: float = 1.0) -> float:
    """Return the Rényi entropy of counts, in bits.

    Parameters
    ----------
    counts
        Counts or other weights, one a state, of any shape; zeros, and shares too small
        for float64, are ignored.
    alpha
        Order, from 0 to infinity, as in `plug_in`.

    Returns
    -------
    float
        Entropy in bits.

    Raises
    ------
    ValueError
        If a count is negative or not finite, none is above zero, or alpha is negative or NaN.

    Examples
    --------
    >>> entropy([2, 2, 0, 2, 2])
    2.0
    """
    values = np.asarray(counts, dtype=np.float64).ravel()
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if wrong.size:
        raise ValueError(f"counts must be finite and not negative: found {wrong[0]}")
    return _renyi(values, np.ones_like(values), alpha)


def cap(neurons: int, rows: int) -> float:
    """Return the largest plug-in that so many rows can give, in bits: min(neurons, log2 rows).

    A plug-in near log2(rows) tells of the rows, not of the layer. ValueError if there is no neuron
    or no row.
    """
    if not (neurons >= 1 and rows >= 1):
        raise ValueError(
            f"a cap needs at least one neuron and one row: found {neurons} neurons, {rows} rows"
        )
    return min(float(neurons), math.log2(rows))


def _renyi(k: FloatArray, states: FloatArray, alpha: float) -> float:
    """Rényi entropy in bits of the shares k / n, each of them the share of so many states."""
    if not alpha >= 0:
        raise ValueError(f"the order alpha must be a number from 0 to infinity: found {alpha}")
    total = math.fsum(k * states)
    if total == 0:
        raise ValueError("an entropy needs at least one row: there are no rows")
    shares = k / total
    seen = shares > 0
    surprisals = log_ratio(total, k[seen])
    nats = _renyi_nats(surprisals, shares[seen], states[seen], float(alpha))
    return max(0.0, nats / math.log(2))


def _renyi_nats(
    surprisals: FloatArray, shares: FloatArray, states: FloatArray, alpha: float
) -> float:
    if alpha == 0:
        return math.log(math.fsum(states))
    if alpha == 1:
        return math.fsum(states * shares * surprisals)
    if alpha == math.inf:
        return float(surprisals.min())
    if abs(alpha - 1) * float(surprisals.max()) < 1:
        return _renyi_near_shannon(surprisals, states * shares, alpha)
    return _renyi_from_largest(surprisals, states, alpha)


def _renyi_near_shannon(surprisals: FloatArray, weights: FloatArray, alpha: float) -> float:
    """Sum p**alpha as 1 + sum p (p**(alpha - 1) - 1): no digits are lost as alpha nears 1."""
    excess = math.fsum(weights * np.expm1(-(alpha - 1) * surprisals))
    return -math.log1p(excess) / (alpha - 1)


def _renyi_from_largest(surprisals: FloatArray, states: FloatArray, alpha: float) -> float:
    """Sum p**alpha relative to the most frequent state: nothing overflows, no digits are lost."""
    top = int(surprisals.argmin())
    smallest = float(surprisals[top])
    with np.errstate(over="ignore"):
        powers = states * np.exp(-alpha * (surprisals - smallest))
    others = math.fsum(np.delete(powers, top))
    log_sum = math.log(states[top]) + math.log1p(others / states[top])
    return smallest + (smallest - log_sum) / (alpha - 1)


def renyi_unbiased(spectrum: Spectrum, order: float) -> float | None:
    """Return the Rényi entropy by the unbiased estimate of sum p**order, in bits.

    The order is a whole number from 2 up, and the time grows with it. None if no state was seen so
    often as the order says: the estimate of the sum is 0 then. ValueError if the spectrum has no
    rows, or the order is none of these.

    It is log2(mu) / (1 - order), where mu, the sum over the states of the product over j < order of
    (k - j) / (n - j), is the share of equal ones among all choices of so many rows. mu has no bias,
    its logarithm a small one. Of about K**(1 - 1 / order) rows on, K being the number of states, it
    is good: far fewer than the Shannon entropy asks for (Acharya, Orlitsky, Suresh and Tyagi,
    arXiv:1408.1000).
    """
    if not (order >= 2 and float(order).is_integer()):
        raise ValueError(f"the order must be a whole number from 2 up: found {order}")
    draws = Draws.of(spectrum)
    # No state has more rows than there are: a larger order only takes longer to say so.
    order = int(min(order, draws.number + 1))
    often = draws.counts >= order
    if not often.any():
        return None
    k, states, n = draws.counts[often], draws.states[often], draws.number
    surprisals = sum((log_ratio(n - j, k - j) for j in range(order)), np.zeros(k.shape))
    others = math.fsum(states[:-1] * np.exp(surprisals[-1] - surprisals[:-1]))
    # Relative to the most frequent states, so that neither mu nor its distance from 1 is lost.
    nats = float(surprisals[-1]) - math.log(states[-1]) - math.log1p(others / states[-1])
    return max(0.0, nats / (order - 1) / math.log(2))
