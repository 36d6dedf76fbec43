"""Shares, of rows in which a neuron fires and of answers that are right, and their limits.

Right answers of independent samples are binomial, and have exact limits (Clopper and Pearson 1934,
Biometrika 26): quantiles of the beta distribution, which also say something where all answers are
right. Answers of one cluster of samples resemble each other: they count for as many as independent
ones that would scatter alike, as groups of clusters tell (Korn and Graubard 1998, Survey
Methodology 24).

A firing rate is a ratio of sums over samples, rows in which a neuron is on to all rows, and
scatters as samples do, not as rows: its variance is that of the ratio estimator (Cochran 1977,
Sampling Techniques, section 6.3). It is told as the number of independent rows that would scatter
alike, and has their binomial limits. Where few samples show a neuron on, or off, they do not tell
how much samples differ, and count for no more rows than there are samples: rows of the next sample
may all be of one kind. Samples of different length count as n**2 / sum r**2 samples of one length
(of n rows r are of each): a few long ones may be most of what was seen.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsstore.statistics.jackknife import FEWEST_GROUPS, standard_error, student_quantile
from tsstore.statistics.special import FloatArray, check_level
from tsstore.statistics.spectrum import IntArray

FEWEST_TELLING = 10
"""Fewer samples with a neuron on, or off, or groups with right or wrong answers, do not tell how
much samples differ."""


class Answers(NamedTuple):
    """Right answers of each group of samples, and all of its answers, int64 (groups,)."""

    right: IntArray
    samples: IntArray

    @property
    def share(self) -> float:
        """Share of all answers that are right; NaN if there are none."""
        samples = int(self.samples.sum())
        return int(self.right.sum()) / samples if samples else float("nan")

    def shares_without(self) -> FloatArray:
        """Return the share of right answers without each group, float64 (groups,).

        ValueError if there are answers of one group only.
        """
        right, samples = int(self.right.sum()), int(self.samples.sum())
        left = samples - self.samples
        if samples == 0 or left.min() == 0:
            raise ValueError(
                f"an accuracy without each group needs answers of two groups: found {samples} "
                f"answers, at most {int(self.samples.max(initial=0))} of them in one group"
            )
        shares: FloatArray = (right - self.right) / left
        return shares


def accuracy_limits(
    answers: Answers, level: float = 0.95, clusters: int | None = None
) -> tuple[float, float]:
    """Return confidence limits of an accuracy, from 0 to 1.

    Where there are clusters, samples of one depend on each other and lie in one group; None if each
    sample is on its own. ValueError if the level is not between 0 and 1, there are no answers, or
    those of clusters are of one group only.
    """
    check_level(level)
    if not (samples := int(answers.samples.sum())):
        raise ValueError("an accuracy needs answers: there are none")
    number = samples if clusters is None else _effective_answers(answers, level, clusters)
    right = answers.share * number
    lower, upper = binomial_limits(right, number - right, level)
    return float(lower), float(upper)


def _effective_answers(answers: Answers, level: float, clusters: int) -> float:
    """Return how many independent answers scatter like those of clusters."""
    samples, share = int(answers.samples.sum()), answers.share
    telling = min(
        int(np.count_nonzero(part)) for part in (answers.right, answers.samples - answers.right)
    )
    if telling < FEWEST_TELLING:
        return float(min(samples, clusters))
    held = answers.samples > 0
    error = standard_error(answers.shares_without()[held])
    groups = max(int(np.count_nonzero(held)), FEWEST_GROUPS)
    wider = student_quantile(level, groups - 1) / student_quantile(level, 10**6)
    return float(min(samples, share * (1 - share) / (error * wider) ** 2))


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


def binomial_limits(
    right: npt.ArrayLike, wrong: npt.ArrayLike, level: float
) -> tuple[FloatArray, FloatArray]:
    """Return confidence limits of shares, exact ones, from 0 to 1 (Clopper and Pearson 1934).

    So many of independent draws are right and wrong, which need not be whole numbers.
    """
    from scipy.special import betaincinv

    right, wrong = np.asarray(right, np.float64), np.asarray(wrong, np.float64)
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):
        lower = np.where(right > 0, betaincinv(right, wrong + 1, tail), 0.0)
        upper = np.where(wrong > 0, betaincinv(right + 1, wrong, 1 - tail), 1.0)
    return lower, upper
