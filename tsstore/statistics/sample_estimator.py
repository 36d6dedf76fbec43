"""The entropy of a layer from samples whose rows repeat each other: the default estimator.

Chao, Wang and Jost (2013) estimate an entropy from n independent draws. Rows of one sample are
not independent, samples are; this extends their estimator to them. The extension is tsstore's own,
not from a paper; `benchmarks/estimators.py` measures it.

A state that a share p of all rows has is in a sample with probability P, and has the mean share s
of the rows of a sample that shows it: p = P s, so that

    H = sum p (-ln P) + sum p (-ln s).

*How many samples show it.* For q of m independent samples, Zhang's (2012) identity

    E[(q / m) (psi(m) - psi(q))] = P sum over v = 1 .. m - 1 of (1 - P)**v / v

holds whatever P is, and the series up to infinity is -ln P. The share k / n of the rows stands for
q / m times the rows of a sample, which is right if in how many samples a state occurs tells nothing
of how many of their rows it has. The rest of the series, v >= m, belongs to states that are rare or
unseen. As in the estimator of Chao, Wang and Jost it is what the states of one and of two samples
say: M1 / n of the rows are in states of a single sample, times T(m, Q1, Q2) of `special.tail_sum`.

*How many of its rows.* The share s is estimated by k m / (q n), a mean over q samples. If the rows
of a state in the samples that show it have the relative variance c, such a mean x scatters, and
E[x ln x] / E[x] exceeds ln E[x]: the surprisal comes out too small. For x from a gamma distribution
of shape q / c it does so by psi(q / c + 1) - ln(q / c), about c / (2 q). That is added.

    H = sum (k / n) [ ln(n / k) + g(q) - g(m) + psi(q / c + 1) - ln(q / c) ]  +  (M1 / n) T,

with g(x) = ln x - psi(x). Every term is positive, so that the estimate is never below the plug-in.
With one position a sample k = q, n = m and c = 0: it is the estimator of Chao, Wang and Jost.

*The relative variance c* matters for rare states: of frequent ones q is large. It is the smaller of
two estimates, because each can be far too large, and for different reasons. One is how much the
rows a sample differ between the rarest states, those seen in the fewest samples: the mean of
q (x / mean of x - 1)**2, in which is also what really tells these states from each other. The other
is how much they differ between the samples of one state, which the sum of the squares of all rows
tells, and frequent states dominate. It comes out of the equation

    sum of squares - sum k**2 / q  =  sum (q - 1) (k / q)**2 c / (1 + c / q),

both sides of which have about the same expectation. What such a correction can do wrong is allowed
for in the interval (`intervals`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.statistics.special import FloatArray, digamma_correction, log_ratio, tail_sum
from tsstore.statistics.spectrum import IntArray, Spectrum

PRECISION = 1e-12
"""To which the spread is found, as a share of it."""

RAREST = 100
"""How many of the states in the fewest samples tell how unequal a rare state's rows are."""


class SampleSums(NamedTuple):
    """What the estimate is made of; each adds up over disjoint sets of states.

    They are n; the sum over rows of what `Surprisals` gives, in nats; M1; Q1 and Q2.
    """

    rows: int
    surprisal: float
    rows_in_single_samples: int
    once: int
    twice: int


@dataclass(frozen=True)
class Surprisals:
    """How surprising a row is, from how often its state was seen: n, m and the relative variance c.

    The sums of a part of the samples can be made with n and m of all: `entropy_of_sums` mends the
    difference, which is the same for every row.
    """

    rows: int
    samples: int
    spread: float

    @classmethod
    def of(
        cls, spectrum: Spectrum, samples: int, equal_pairs_within_samples: int | None = None
    ) -> Surprisals:
        """Take rows and spread from a spectrum; parameters as `chao_wang_jost_by_samples`."""
        if spectrum.rows == 0:
            raise ValueError("an entropy needs at least one row: there are no rows")
        if (most := int(spectrum.incidence.max())) > samples:
            raise ValueError(
                f"a state was seen in {most} samples, but there are {samples}; pass the number of "
                "samples that were counted"
            )
        spread = rare_spread(spectrum, equal_pairs_within_samples)
        return cls(spectrum.rows, operator.index(samples), spread)

    def nats(self, multiplicity: IntArray, incidence: IntArray) -> FloatArray:
        """Return the surprisal of a row of each entry, in nats."""
        seen = _for_each(self._nats_of_incidence, incidence)
        return log_ratio(self.rows, multiplicity.astype(np.float64)) + seen

    def bits_for_unequal_rows(self, spectrum: Spectrum) -> float:
        """Return the part of the entropy that is due to the spread of a rare state's rows."""
        nats = _for_each(self._nats_for_unequal_rows, spectrum.incidence)
        rows = spectrum.multiplicity * spectrum.states
        return float(rows @ nats) / self.rows / math.log(2)

    def _nats_of_incidence(self, incidence: IntArray) -> FloatArray:
        nats = digamma_correction(incidence) - digamma_correction(self.samples)
        return nats + self._nats_for_unequal_rows(incidence)

    def _nats_for_unequal_rows(self, incidence: IntArray) -> FloatArray:
        if self.spread == 0:
            return np.zeros(incidence.shape)
        return self.spread / incidence - digamma_correction(incidence / self.spread)


def chao_wang_jost_by_samples(
    spectrum: Spectrum, samples: int, equal_pairs_within_samples: int | None = None
) -> float:
    """Return the sample-based entropy of Chao, Wang and Jost, in bits: the default estimate.

    Parameters
    ----------
    spectrum
        What was counted, with incidences.
    samples
        m, how many samples were counted.
    equal_pairs_within_samples
        Sum over states and samples of c (c - 1) / 2, c being the rows of the sample with the
        state. None where it is not known: the rows of a state are then taken to be equally many in
        all samples that show it, and where they are not the estimate is lower.

    Returns
    -------
    float
        Bits; never below the plug-in entropy.

    Raises
    ------
    ValueError
        If there are no rows, or a state was seen in more samples than there are.

    Notes
    -----
    The module's text derives it. It is not unbiased: what the samples do not hint at, such as a
    heavy tail of rare states, is missing from it, and the estimate is then too low.
    """
    surprisals = Surprisals.of(spectrum, samples, equal_pairs_within_samples)
    return entropy_of_sums(sample_sums(spectrum, surprisals), surprisals, operator.index(samples))


def sample_sums(spectrum: Spectrum, surprisals: Surprisals) -> SampleSums:
    """Add up what the estimate is made of: of all that was counted, or of a part of it."""
    k, q, states = spectrum.multiplicity, spectrum.incidence, spectrum.states
    return SampleSums(
        spectrum.rows,
        math.fsum(states * (k * surprisals.nats(k, q))),
        spectrum.rows_in_single_samples,
        int(states[q == 1].sum()),
        int(states[q == 2].sum()),
    )


def entropy_of_sums(sums: SampleSums, surprisals: Surprisals, samples: int) -> float:
    """Return the estimate that the sums of m samples give, in bits.

    Surprisals are what they were made with, of these samples or of more.
    """
    fewer_rows = math.log1p((sums.rows - surprisals.rows) / surprisals.rows)
    corrections = digamma_correction([surprisals.samples, samples])
    seen = sums.surprisal / sums.rows + fewer_rows + float(corrections[0] - corrections[1])
    tail = tail_sum(samples, sums.once, sums.twice)
    unseen = sums.rows_in_single_samples / sums.rows * tail
    return (seen + unseen) / math.log(2)


def sums_without_groups(
    total: SampleSums, changes: SpectrumDelta, surprisals: Surprisals
) -> list[SampleSums]:
    """Return what the default estimate is made of, of all samples but those of each group.

    No spectrum is made without a group: the sums add up, and so do their changes. The spread of a
    rare state's rows is that of all samples throughout. One a group; that of all samples for a
    group that holds none.
    """
    k, q, states = changes.multiplicity, changes.incidence, changes.states
    once, twice = states * (q == 1), states * (q == 2)
    surprisal = total.surprisal + changes.by_group(states * (k * surprisals.nats(k, q)))
    in_single = total.rows_in_single_samples + changes.by_group(once * k)
    seen = total.once + changes.by_group(once), total.twice + changes.by_group(twice)
    counts = (column.astype(np.int64) for column in (in_single, *seen))
    columns = total.rows - changes.rows, surprisal, *counts
    return [SampleSums(*sums) for sums in zip(*(c.tolist() for c in columns), strict=True)]


def rare_spread(spectrum: Spectrum, equal_pairs_within_samples: int | None) -> float:
    """Return the relative variance c of a rare state's rows; 0 where nothing tells of it."""
    if equal_pairs_within_samples is None:
        return 0.0
    largest = _spread_of_rarest(spectrum)
    k, q = spectrum.multiplicity.astype(np.float64), spectrum.incidence.astype(np.float64)
    squares = spectrum.rows + 2.0 * equal_pairs_within_samples
    excess = squares - float(spectrum.states @ (k**2 / q))
    weights = spectrum.states * ((q - 1) * (k / q) ** 2)

    def expected(spread: float) -> float:
        return spread * float((weights / (1 + spread / q)).sum())

    if largest == 0 or excess <= 0:
        return 0.0
    if expected(largest) <= excess:
        return largest
    # What is expected is concave: Newton's steps from 0 never go too far.
    spread, step = 0.0, largest
    while step > PRECISION * spread:
        step = (excess - expected(spread)) / float((weights / (1 + spread / q) ** 2).sum())
        spread += step
    return min(spread, largest)


def _spread_of_rarest(spectrum: Spectrum) -> float:
    """Return the relative variance between the states that the fewest samples show."""
    incidences, distinct = spectrum.incidences()
    last = min(int(np.searchsorted(distinct.cumsum(), RAREST)), len(incidences) - 1)
    rarest = spectrum.incidence <= incidences[last]
    q, states = spectrum.incidence[rarest], spectrum.states[rarest]
    if states.sum() < 2:
        return 0.0
    each = spectrum.multiplicity[rarest] / q
    mean = float(states @ (q * each)) / float(states @ q)
    return float((states * q) @ (each / mean - 1) ** 2) / float(states.sum() - 1)


def _for_each(function: Callable[[IntArray], FloatArray], numbers: IntArray) -> FloatArray:
    """Return a function of whole numbers >= 1, by a table where that takes fewer evaluations."""
    largest = int(numbers.max(initial=0))
    if largest >= numbers.size:
        return function(numbers)
    return function(np.arange(1, largest + 1))[numbers - 1]
