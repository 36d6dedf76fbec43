"""Rényi entropies from unbiased moments, and Hill numbers: how many states there are, in effect.

The Hill number of an order is 2 to the power of the Rényi entropy of that order: the number of
equally likely states that would have the same entropy (Hill 1973).
"""

from __future__ import annotations

import math

import numpy as np

from tsstore.statistics.draws import Draws
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.numerics import log_ratio
from tsstore.statistics.spectrum import Spectrum


def renyi_unbiased(spectrum: Spectrum, order: int) -> float | None:
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
        If the spectrum has no rows, or the order is below 2.

    Notes
    -----
    log2(mu) / (1 - order), where mu, the sum over the states of the product over j < order of
    (k - j) / (n - j), is the share of equal ones among all choices of so many rows. mu has no
    bias, its logarithm a small one. Of about K**(1 - 1 / order) rows on, K being the number of
    states, it is good: far fewer than the Shannon entropy asks for (Acharya, Orlitsky, Suresh and
    Tyagi, arXiv:1408.1000).
    """
    if order < 2:
        raise ValueError(f"the order must be a whole number from 2 up: found {order}")
    draws = Draws.of(spectrum)
    often = draws.counts >= order
    if not often.any():
        return None
    k, states, n = draws.counts[often], draws.states[often], draws.number
    surprisals = sum((log_ratio(n - j, k - j) for j in range(order)), np.zeros(k.shape))
    others = math.fsum(states[:-1] * np.exp(surprisals[-1] - surprisals[:-1]))
    # Relative to the most frequent states, so that neither mu nor its distance from 1 is lost.
    nats = float(surprisals[-1]) - math.log(states[-1]) - math.log1p(others / states[-1])
    return max(0.0, nats / (order - 1) / math.log(2))


def hill(spectrum: Spectrum, order: float = 1.0) -> float:
    """Return the Hill number of the observed shares: 2 to the power of the plug-in entropy.

    Parameters
    ----------
    spectrum
        What was counted.
    order
        From 0 to infinity: 0 gives the number of distinct states, infinity one over the largest
        share. It never grows with the order.

    Returns
    -------
    float
        A number of states, at least 1.

    Raises
    ------
    ValueError
        If the spectrum has no rows, or the order is negative or NaN.

    Notes
    -----
    Hill (1973). Too low on average for small orders, as the plug-in entropy is.
    """
    return float(2 ** plug_in(spectrum, order))


def hill_unbiased(spectrum: Spectrum, order: int) -> float | None:
    """Return the Hill number by the unbiased estimate of sum p**order.

    Parameters
    ----------
    spectrum
        What was counted: n rows, drawn independently of each other.
    order
        Whole number from 2 up. 2 is one over the share of equal pairs of rows.

    Returns
    -------
    float or None
        A number of states, at least 1. None as for `renyi_unbiased`.

    Raises
    ------
    ValueError
        As `renyi_unbiased`.

    Notes
    -----
    2 to the power of `renyi_unbiased`; for order 2 it is the inverse of Simpson's index without
    replacement (Simpson 1949).
    """
    entropy = renyi_unbiased(spectrum, order)
    return None if entropy is None else float(2**entropy)
