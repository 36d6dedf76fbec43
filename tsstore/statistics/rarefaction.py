"""What fewer draws would have shown: distinct states, entropy and coverage at a size.

Numbers of states and entropies grow with the draws, so layers, groups and runs are compared at the
same number of them. Rarefaction is the mean over all ways to keep m of the n draws, without bias
for what m draws show on average. A spectrum's counts are condensed once (`condensing`), so that
further sizes cost little.
"""

from __future__ import annotations

import math

import numpy as np

from tsstore.statistics.condensing import condense
from tsstore.statistics.draws import Draws, draws_from_one_to
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.hypergeometric import log_avoidance, taken_marked
from tsstore.statistics.numerics import FloatArray, log_ratio
from tsstore.statistics.spectrum import IntArray, Spectrum

ENTRIES_AT_ONCE = 64
"""So many counts are rarefied at once: of similar ones arrays are hardly wider than need be."""


class Rarefaction:
    """A spectrum's draws, of which fewer can be asked for.

    Parameters
    ----------
    spectrum
        What was counted.
    samples
        How many samples there were, to count by samples; None to count by rows.

    Raises
    ------
    ValueError
        If the spectrum has no rows, or a state occurs in more samples than there were.
    """

    def __init__(self, spectrum: Spectrum, samples: int | None = None) -> None:
        self.draws = Draws.of(spectrum, samples)
        self._counts, self._states = condense(self.draws.counts, self.draws.states)

    def richness(self, draws: int) -> float:
        """Return how many distinct states so many draws show; parameters as `richness_at`."""
        size = draws_from_one_to(self.draws.number, draws)
        return math.fsum(self._states * share_seen(self._counts, size, self.draws.number))

    def entropy(self, draws: int) -> float:
        """Return the plug-in entropy that so many draws give, in bits; as `entropy_at`."""
        observed, kept = self.draws, draws_from_one_to(self.draws.number, draws)
        if kept == observed.number:
            return plug_in(Spectrum.from_arrays(observed.counts, observed.counts, observed.states))
        size = kept * observed.total / observed.number
        each = mean_surprisals(self._counts, kept, observed.number, size)
        return math.fsum(self._states * each) / size / math.log(2)

    def coverage(self, draws: int) -> float | None:
        """Return the coverage to expect of so many draws; as `coverage.coverage_at`."""
        observed, kept = self.draws, draws_from_one_to(self.draws.number, draws)
        if observed.number == 1:
            return None
        if kept == observed.number:
            return observed.coverage
        seen = share_seen(self._counts - 1, kept, observed.number - 1)
        return math.fsum(self._states * (self._counts * seen)) / observed.total


def richness_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float:
    """Return how many distinct states fewer draws would have shown.

    Parameters
    ----------
    spectrum
        What was counted.
    draws
        m, from 1 to all: rows, or samples if samples is given.
    samples
        How many samples there were, to count by samples; None to count by rows.

    Raises
    ------
    ValueError
        If the spectrum has no rows, a state occurs in more samples than there were, or draws is
        below 1 or more than there are.

    Notes
    -----
    The sum over states of 1 - C(n - j, m) / C(n, m) (Hurlbert 1971, Ecology 52).
    """
    return Rarefaction(spectrum, samples).richness(draws)


def entropy_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float:
    """Return the plug-in entropy that fewer draws would have given, in bits.

    Parameters
    ----------
    spectrum, draws, samples
        As `richness_at`. By samples the entropy is that of a state's share of all incidences,
        which is not the entropy of the rows unless each sample has one position.

    Raises
    ------
    ValueError
        As `richness_at`.

    Notes
    -----
    The mean of -sum x/u ln(x/u) over hypergeometric counts x, u = m U/n being the mean of their
    total (Chao et al. 2014, Ecological Monographs 84, tables 1 and 2).
    """
    return Rarefaction(spectrum, samples).entropy(draws)


def share_seen(counts: IntArray, draws: int, number: int) -> FloatArray:
    """Return the probability that so many of all draws show a state of each count, (entries,)."""
    seen: FloatArray = -np.expm1(log_avoidance(counts, draws, number))
    return seen


def mean_surprisals(counts: IntArray, draws: int, number: int, size: float) -> FloatArray:
    """Return the mean of x ln(size / x), x being how often so many of all draws show a state.

    Parameters
    ----------
    counts
        int64 of shape (entries,): in how many of all draws the states were seen.
    draws, number
        How many draws are kept, fewer than there are, and how many there are.
    size
        What the x add up to, or anything else above 0.

    Returns
    -------
    float64 of shape (entries,)
        In nats.
    """
    means = [np.empty(0)]
    for first in range(0, len(counts), ENTRIES_AT_ONCE):
        drawn, weights = taken_marked(counts[first : first + ENTRIES_AT_ONCE], draws, number)
        # A state that was not drawn adds nothing, but its logarithm is infinite.
        logs = log_ratio(size, np.maximum(drawn, 1).astype(np.float64))
        means.append((weights * drawn * logs).sum(axis=1))
    return np.concatenate(means)
