"""Firing rates of neurons, and their confidence limits by samples.

A rate is a ratio of sums over samples, rows in which a neuron is on to all rows, and scatters as
samples do, not as rows: its variance is that of the ratio estimator (Cochran 1977, Sampling
Techniques, section 6.3). It is told as the number of independent rows that would scatter alike,
whose binomial limits are exact (Clopper and Pearson 1934, Biometrika 26; Korn and Graubard 1998,
Survey Methodology 24). Where few samples show a neuron on, or off, they do not tell how much
samples differ, and count for no more rows than there are samples: rows of the next sample may all
be of one kind.
"""

from __future__ import annotations

import numpy as np

from tsstore.statistics.special import FloatArray, check_level
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
    """Return confidence limits of firing rates.

    Parameters
    ----------
    on, squares, products
        int64 (neurons,): rows in which each neuron is on; over samples, the sum of squares of
        these rows, and of their products with the sample's rows.
    fired, full
        int64 (neurons,): samples in which it is on in some row, and in all rows.
    samples, rows, squared_rows
        How many samples there are, how many rows, and the sum of squares of samples' rows.
    level
        Nominal confidence, between 0 and 1.

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper limits, float64 (neurons,), from 0 to 1.

    Raises
    ------
    ValueError
        If level is not between 0 and 1, or there are no rows.
    """
    from scipy.special import betaincinv

    check_level(level)
    if not rows:
        raise ValueError("a firing rate needs rows: there are none")
    rate = on / rows
    number = np.full(len(on), float(samples))
    telling = np.minimum(fired, samples - full) >= FEWEST_TELLING
    if samples > 1 and telling.any():
        residual = squares - 2 * rate * products + rate**2 * float(squared_rows)
        variance = samples / (samples - 1) * np.maximum(residual, 0.0) / float(rows) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            alike = rate * (1 - rate) / variance
        # Samples that all show the same share scatter like infinitely many rows: there are so many.
        alike = np.where(np.isfinite(alike), np.minimum(alike, rows), rows)
        number = np.where(telling, alike, number)
    tail = (1 - level) / 2
    right, wrong = rate * number, (1 - rate) * number
    with np.errstate(invalid="ignore"):
        lower = np.where(on > 0, betaincinv(right, wrong + 1, tail), 0.0)
        upper = np.where(on < rows, betaincinv(right + 1, wrong, 1 - tail), 1.0)
    return lower, upper
