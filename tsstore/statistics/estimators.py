"""Estimates of the Shannon entropy from rows that were drawn independently, in bits.

The plug-in entropy is too low on average. Each function here corrects it in its own way, and all
take every row for a draw of its own: rows of one sample repeat each other, and then all of these
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

from tsstore.statistics.entropy import plug_in
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
