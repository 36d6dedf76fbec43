"""How much an estimate of the entropy varies, by leaving out each row in turn.

Leaving out one of the k rows of a state changes n, the number of states with k rows and the
number with k - 1, and nothing else. So there are as many different estimates without a row as
there are distinct multiplicities, and those of a whole spectrum cost no more than one estimate.

All take the rows for independent draws; where rows of one sample repeat each other these errors
are several times too small.
"""

from __future__ import annotations

import math

from tsstore.statistics.draws import Draws
from tsstore.statistics.numerics import (
    FloatArray,
    digamma_correction,
    jackknife_correction,
    log_ratio,
)
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.unseen import tail_sum


def jackknife_standard_error(spectrum: Spectrum) -> float | None:
    """Return the jackknife's standard error of the plug-in entropy, in bits.

    Parameters
    ----------
    spectrum
        What was counted: n rows.

    Returns
    -------
    float or None
        Bits; 0 if all states have equally many rows. None for a single row.

    Raises
    ------
    ValueError
        If the spectrum has no rows.

    Notes
    -----
    Tukey's (1958) variance, (n - 1) / n times the sum over the rows of the squared deviations of
    the estimates without it; Zahl (1977) has it for entropies. It also serves `jackknife`.
    """
    draws = Draws.of(spectrum)
    if draws.number < 2:
        return None
    k = draws.counts
    return _standard_error(log_ratio(k[-1], k) + jackknife_correction(k), draws)


def chao_wang_jost_standard_error(spectrum: Spectrum) -> float | None:
    """Return the jackknife's standard error of `chao_wang_jost`, in bits.

    Parameters
    ----------
    spectrum
        What was counted: n rows, f1 states with a single one.

    Returns
    -------
    float or None
        Bits. None if every row is a state of its own, since leaving out any of them is the same.

    Raises
    ------
    ValueError
        If the spectrum has no rows.

    Notes
    -----
    As `jackknife_standard_error`. The estimate without a row of a state with k rows is a constant
    plus (psi(k) + [k > 1] + f1 T) / (n - 1), with f1 and T as they are without it.
    """
    draws = Draws.of(spectrum)
    n, once, twice = draws.number, draws.once, draws.twice
    if once == n:
        return None
    k = draws.counts
    fall = log_ratio(k[-1], k) + digamma_correction(k) + (k == 1)
    usual = once * tail_sum(n - 1, once, twice)
    # Only these multiplicities take part in f1 and f2, before or after.
    for multiplicity, singles, pairs in ((1, -1, 0), (2, 1, -1), (3, 0, 1)):
        left = once + singles
        for entry in (k == multiplicity).nonzero()[0]:
            fall[entry] += usual - left * tail_sum(n - 1, left, twice + pairs)
    return _standard_error(fall, draws)


def _standard_error(values: FloatArray, draws: Draws) -> float:
    """Return the standard error in bits, each value being n - 1 times an estimate in nats.

    Only differences of the values matter: they are taken relative to the most frequent state's,
    so that those of many rows, which hardly differ, keep the digits in which they do.
    """
    shares = draws.weights / draws.number
    deviations = values - math.fsum(shares * values)
    variance = math.fsum(shares * deviations**2) / (draws.number - 1)
    return math.sqrt(variance) / math.log(2)
