"""An upper bound on the entropy of a layer from how often each of its neurons fires."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def upper_bound_from_rates(rates: npt.ArrayLike) -> float:
    """Return the entropy that neurons of these rates would have if they were independent, in bits.

    Parameters
    ----------
    rates
        Of shape (neurons,), from 0 to 1: in what share of the rows each neuron is on.

    Returns
    -------
    float
        Sum over neurons of h(p) = -p log2 p - (1 - p) log2 (1 - p); from 0 to the number of
        neurons.

    Raises
    ------
    ValueError
        If there are no neurons, or a rate is not from 0 to 1.

    Notes
    -----
    The entropy of several variables is never more than the sum of their own (Shannon 1948), with
    equality where they are independent. Rates of n rows, drawn independently, make the bound too
    low by about neurons / (2 n ln 2) bits on average (Miller 1955): next to nothing, unless rows
    are fewer than neurons.
    """
    from scipy.special import entr, xlog1py

    shares = np.asarray(rates, dtype=np.float64)
    if shares.ndim != 1 or shares.size == 0:
        raise ValueError(f"rates must be one a neuron: found shape {shares.shape}")
    wrong = shares[~((shares >= 0) & (shares <= 1))]
    if wrong.size:
        raise ValueError(f"a rate must be from 0 to 1: found {wrong[0]}")
    return math.fsum(entr(shares) - xlog1py(1 - shares, -shares)) / math.log(2)
