"""Firing rates of neurons, their confidence limits by samples, and the entropy they allow.

A rate is a ratio of sums over samples, rows in which a neuron is on to all rows, and scatters as
samples do, not as rows: its variance is that of the ratio estimator (Cochran 1977, Sampling
Techniques, section 6.3). It is told as the number of independent rows that would scatter alike,
whose binomial limits are exact (Clopper and Pearson 1934, Biometrika 26; Korn and Graubard 1998,
Survey Methodology 24). Where few samples show a neuron on, or off, they do not tell how much
samples differ, and count for no more rows than there are samples: rows of the next sample may all
be of one kind. Samples of different length count as n**2 / sum r**2 samples of one length (of n
rows r are of each): a few long ones may be most of what was seen.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tsstore.statistics.special import FloatArray, binomial_limits, check_level
from tsstore.statistics.spectrum import IntArray

FEWEST_TELLING = 10
"""With a neuron on, or off, in fewer samples these do not tell how much samples differ."""


def rate_limits(
    on: IntArray,
    squares: IntArray,
    products: IntArray,
    fired: IntArray,
    full: IntArray,
    *,
    samples: int,
    rows: int,
    squared_rows: int,
    level: float = 0.95,
) -> tuple[FloatArray, FloatArray]:
    """Return lower and upper confidence limits of firing rates, float64 (neurons,), from 0 to 1.

    Arrays are int64 (neurons,): rows in which each neuron is `on`; over samples, the sum of
    `squares` of these rows, and of their `products` with the sample's rows; the samples in which it
    `fired` in some row, and in all (`full`). Numbers are of samples, of rows, and the sum of
    squares of samples' rows. ValueError if the level is not between 0 and 1, or there are no rows.
    """
    check_level(level)
    if not rows:
        raise ValueError("a firing rate needs rows: there are none")
    rate = on / rows
    number = np.full(len(on), float(rows) ** 2 / squared_rows)
    telling = np.minimum(fired, samples - full) >= FEWEST_TELLING
    if samples > 1 and telling.any():
        residual = squares - 2 * rate * products + rate**2 * float(squared_rows)
        variance = samples / (samples - 1) * np.maximum(residual, 0.0) / float(rows) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            alike = rate * (1 - rate) / variance
        # Samples that all show the same share scatter like infinitely many rows: there are so many.
        alike = np.where(np.isfinite(alike), np.minimum(alike, rows), rows)
        number = np.where(telling, alike, number)
    return binomial_limits(rate * number, (1 - rate) * number, level)


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
