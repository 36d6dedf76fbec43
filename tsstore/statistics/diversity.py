"""Rényi entropies from unbiased moments."""

from __future__ import annotations

import math

import numpy as np

from tsstore.statistics.draws import Draws
from tsstore.statistics.numerics import log_ratio
from tsstore.statistics.spectrum import Spectrum


def renyi_unbiased(spectrum: Spectrum, order: float) -> float | None:
    """Return the Rényi entropy by the unbiased estimate of sum p**order, in bits.

    Parameters
    ----------
    spectrum
        What was counted: n rows, drawn independently of each other.
    order
        Whole number from 2 up; 2 is the collision entropy. The time grows with the order.

    Returns
    -------
    float or None
        Bits, at least the plug-in of this order. None if no state was seen so often as the order
        says: the estimate of the sum is 0 then.

    Raises
    ------
    ValueError
        If the spectrum has no rows, or the order is no whole number, or below 2.

    Notes
    -----
    log2(mu) / (1 - order), where mu, the sum over the states of the product over j < order of
    (k - j) / (n - j), is the share of equal ones among all choices of so many rows. mu has no
    bias, its logarithm a small one. Of about K**(1 - 1 / order) rows on, K being the number of
    states, it is good: far fewer than the Shannon entropy asks for (Acharya, Orlitsky, Suresh and
    Tyagi, arXiv:1408.1000).
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
