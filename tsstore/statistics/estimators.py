"""Entropies of what was counted, in bits: plug-in, of any order, and better estimates from rows.

The plug-in Shannon entropy is too low on average. Estimators correct it, each in its own way, and
all take every row for a draw of its own: rows of one sample repeat each other, and then all of them
are too low, by more than their differences from each other.

Each takes a spectrum, n rows in all, of which k are in a state, and gives bits; ValueError if there
are no rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from tsstore.statistics.richness import Draws
from tsstore.statistics.special import (
    FloatArray,
    digamma_correction,
    grassberger_correction,
    jackknife_correction,
    log_ratio,
    tail_sum,
)
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


def miller_madow(spectrum: Spectrum) -> float:
    """Return the plug-in entropy plus (S - 1) / (2 n), S being the number of distinct states.

    The first term of the bias in 1 / n (Miller 1955), with S for the number of states there are.
    Good once nearly every state was seen; of little use before.
    """
    entropy = plug_in(spectrum)
    return entropy + (spectrum.distinct - 1) / (2 * spectrum.rows) / math.log(2)


def zhang(spectrum: Spectrum) -> float:
    """Return the mean over the rows of psi(n) - psi(k); at least `miller_madow`.

    Zhang (2012), in the closed form with psi, the digamma function. Its mean over draws of n rows
    is exactly the sum of the first n - 1 terms of H = sum over v of (1 / v) sum p (1 - p)**v,
    all of them positive: never too high on average, and nearly right once rare states are few.
    """
    mean = _mean_with(digamma_correction, spectrum)
    return _not_negative(mean - float(digamma_correction(spectrum.rows)))


def grassberger(spectrum: Spectrum) -> float:
    """Return the mean over the rows of ln n - G_k, as Grassberger (2003) has it.

    G_k = psi(floor(k / 2) + 1/2) + ln 2 (arXiv:physics/0307138, which also has ln n; some write
    psi(n) in its place). Its bias is small as soon as most states have some rows; where most have
    one it is 1 bit above `zhang`. Of one state alone it can be below 0, by 1 / (6 n**2) nats for
    even n.
    """
    return _mean_with(grassberger_correction, spectrum) / math.log(2)


def jackknife(spectrum: Spectrum) -> float:
    """Return n H - (n - 1) times the mean of H with one row left out; at least `zhang`.

    H is the plug-in; a single row has nothing left without it, and entropy 0. Zahl (1977), as the
    mean over the rows of ln(n / k) + g(k) less g(n), with g(k) = 1 + (k - 1) ln(1 - 1 / k): the
    difference that defines it would lose log10 n digits. Takes away the bias in 1 / n, like
    `miller_madow`, without knowing the number of states.
    """
    mean = _mean_with(jackknife_correction, spectrum)
    return _not_negative(mean - float(jackknife_correction(spectrum.rows)))


def chao_shen(spectrum: Spectrum) -> float:
    """Return the entropy of shares shrunk to the coverage, weighed by the chance to be seen.

    Chao and Shen (2003): sum of -q ln q / (1 - (1 - q)**n) with q = C k / n and the coverage
    C = 1 - f1 / n of Good and Turing, or 1 / n where every row is a state of its own. Some tools
    take other coverages. Good with many rare states of similar probability; of little use once no
    state has a single row: C is 1 then, and next to nothing is corrected.
    """
    draws = Draws.of(spectrum)
    n = draws.number
    covered = np.array([n - draws.once or 1])
    q = covered / n * (draws.counts / n)
    with np.errstate(divide="ignore"):
        chance_to_be_seen = -np.expm1(n * np.log1p(-q))
    information = log_ratio(n, draws.counts) + log_ratio(n, covered)
    return _not_negative(math.fsum(draws.states * q * information / chance_to_be_seen))


def chao_wang_jost(spectrum: Spectrum) -> float:
    """Return `zhang` plus an estimate of the terms beyond n that it leaves out.

    Chao, Wang and Jost (2013): `zhang` + f1 / n T, T being `special.tail_sum`, with f1 of the
    distinct states seen in a single row. Usually the least biased of these where rows are
    independent; still too low where very many states are very rare. If every row is a state of its
    own it says little more than `zhang`: about 2 log2 n - 1.
    """
    draws = Draws.of(spectrum)
    n, once = draws.number, draws.once
    return zhang(spectrum) + once / n * tail_sum(n, once, draws.twice) / math.log(2)


def nemenman(spectrum: Spectrum) -> tuple[float, float] | None:
    """Return an estimate for when almost every row is a state of its own, and its spread, in bits.

    .. deprecated:: 0.2
        It is believable for shares as unequal as its prior alone, and nothing shows it; it will go.
        `LayerResult.entropy_lower_bound` holds for such layers.

    Nemenman (2011): (gamma - ln 2) + 2 ln n - psi(D) with the coincidences D = n - S, and the
    square root of psi'(D). None if 9 rows in 10 or fewer are states of their own, where its
    assumption fails, or all are, which tells nothing. It takes the rare states for as unequal as a
    Dirichlet process makes them: for equally likely ones it is gamma nats, 0.83 bits, too high, and
    with frequent states beside them it is too low.
    """
    from scipy.special import digamma, polygamma

    warnings.warn(
        "nemenman will go: LayerResult.entropy_lower_bound holds where nearly all states are new",
        DeprecationWarning,
        stacklevel=2,
    )
    draws = Draws.of(spectrum)
    n = draws.number
    coincidences = n - draws.distinct
    if coincidences == 0 or 10 * draws.once <= 9 * n:
        return None
    nats = np.euler_gamma - math.log(2) + 2 * math.log(n) - float(digamma(coincidences))
    deviation = math.sqrt(float(polygamma(1, coincidences)))
    return nats / math.log(2), deviation / math.log(2)


ESTIMATORS: Mapping[str, Callable[[Spectrum], float]] = MappingProxyType(
    {
        "plug-in": plug_in,
        "miller-madow": miller_madow,
        "zhang": zhang,
        "grassberger": grassberger,
        "jackknife": jackknife,
        "chao-shen": chao_shen,
        "chao-wang-jost": chao_wang_jost,
    }
)
"""The estimators of the Shannon entropy by name; each gives bits for any spectrum with rows."""


def _mean_with(correction: Callable[[npt.ArrayLike], FloatArray], spectrum: Spectrum) -> float:
    """Return the mean over the rows of ln(n / k) plus the correction of ln k, in nats."""
    draws = Draws.of(spectrum)
    shares = draws.weights / draws.number
    corrected = log_ratio(draws.number, draws.counts) + correction(draws.counts)
    return math.fsum(shares * corrected)


def _not_negative(nats: float) -> float:
    """Return bits, without the sign that rounding may give to an entropy of 0."""
    return max(0.0, nats / math.log(2))
