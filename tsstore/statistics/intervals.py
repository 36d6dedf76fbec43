"""Confidence intervals by leaving groups of samples out.

*Scatter.* The standard error is that of the delete-a-group jackknife (`jackknife`). For an
interval it is taken t times, t being Student's quantile with one degree of freedom less than there
are groups that hold samples.

*Bias.* The jackknife tells how much an estimate scatters, not how far it is off. What is left of
its bias is allowed for in the interval, with t times the standard error as e,

    from  estimate - C / 4 - 4 (estimate - plug-in) / (S - 1) - e
      to  estimate + (estimate - plug-in) / 2 + e.

The plug-in is too low, the estimate mends most of that, and it mostly remains too low: by less than
half of what it mended, is the allowance. C is the part of it that is due to unequal rows (the last
term of `by_samples`); that part can be too large, where the rows of rare states are more equal than
those of others, or have a heavy tail. Half and a quarter were chosen by simulation. They were then
confirmed on other distributions and networks: `benchmarks/estimators.py`.

The term with S, the number of distinct states, is for a handful of states that are nearly equally
frequent. There the entropy is at its largest and does not change, to first order, with their
shares, so that the jackknife sees next to no scatter where the shares happen to come out even. What
they took the entropy below its largest is, 2 n ln 2 times, about chi-squared with S - 1 degrees of
freedom; estimate - plug-in is about (S - 1) / (2 n ln 2), and so this is where two standard
deviations of one of the S - 1 directions lead, squared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tsstore.statistics.by_samples import (
    Surprisals,
    chao_wang_jost_by_samples,
    entropy_of_sums,
    sample_sums,
)
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.jackknife import (
    FEWEST_GROUPS,
    check_changes,
    entropies_without_groups,
    standard_error,
    student_quantile,
)
from tsstore.statistics.numerics import FloatArray
from tsstore.statistics.spectrum import IntArray, Spectrum

TOO_LOW = 1 / 2
"""Share of estimate minus plug-in by which the estimate may still be too low."""

TOO_HIGH = 1 / 4
"""Share of the estimate's part for unequal rows by which it may be too high."""


TOO_EVEN = 4
"""So many times what the estimate adds for each state but one, it may be too high by chance."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes
    ----------
    estimate
        The number itself.
    lower, upper
        Ends of the interval; the estimate is between them, seldom in the middle.
    standard_error
        How much the estimate scatters from one set of samples to another.
    level
        Nominal probability that the interval holds the true number.
    """

    estimate: float
    lower: float
    upper: float
    standard_error: float
    level: float


@dataclass(frozen=True)
class Jackknifed:
    """An estimate of all samples, and those without each group of them.

    Attributes
    ----------
    estimate
        Of all samples.
    lowest, highest
        How far off it may be on average: at most estimate and at least estimate.
    without
        float64 of shape (groups,): the estimate without each group; that of all samples for a group
        that holds none.
    samples
        int64 of shape (groups,): the samples of each group.
    """

    estimate: float
    lowest: float
    highest: float
    without: FloatArray
    samples: IntArray

    def interval(self, level: float = 0.95, largest: float = math.inf) -> Interval:
        """Return the confidence interval.

        Parameters
        ----------
        level
            Nominal confidence, between 0 and 1.
        largest
            The largest value there can be: the neurons, for an entropy. Estimate and ends are from
            0 to this.

        Raises
        ------
        ValueError
            If level is not between 0 and 1, or fewer than two groups hold samples.
        """
        margin = self.margin(level)
        return Interval(
            min(max(self.estimate, 0.0), largest),
            min(max(self.lowest - margin, 0.0), largest),
            min(max(self.highest + margin, 0.0), largest),
            self.standard_error,
            level,
        )

    @property
    def standard_error(self) -> float:
        """How much the estimate scatters; ValueError if fewer than two groups hold samples."""
        return standard_error(self.without[self.samples > 0])

    def margin(self, level: float = 0.95) -> float:
        """Return how far an interval reaches to each side for the scatter; raises likewise."""
        groups = int(np.count_nonzero(self.samples))
        return student_quantile(level, groups - 1) * self.standard_error


def entropy_interval(
    spectrum: Spectrum,
    samples: int,
    changes: GroupChanges,
    *,
    level: float = 0.95,
    neurons: int | None = None,
) -> Interval | None:
    """Return a confidence interval for a layer's entropy, in bits, about the default estimate.

    Parameters
    ----------
    spectrum
        What was counted, with incidences.
    samples
        How many samples were counted.
    changes
        What leaving each group of them out changes.
    level
        Nominal confidence, between 0 and 1.
    neurons
        Neurons of the layer: no end of the interval is above them, if given.

    Returns
    -------
    Interval or None
        None if fewer than two groups hold rows: there are too few samples, or clusters of them.

    Raises
    ------
    ValueError
        If there are no rows, level is not between 0 and 1, or the changes are those of other
        samples.
    """
    student_quantile(level, 1)
    entropy = jackknifed_entropy(spectrum, samples, changes)
    return None if entropy is None else entropy.interval(level, float(neurons or math.inf))


def jackknifed_entropy(
    spectrum: Spectrum, samples: int, changes: GroupChanges
) -> Jackknifed | None:
    """Return the default estimate of a layer's entropy, in bits, and those without each group.

    Parameters
    ----------
    spectrum, samples, changes
        As `entropy_interval`; what is returned, and raised, likewise.
    """
    check_changes(spectrum, samples, changes)
    equal_pairs = int(changes.equal_pairs_within_samples.sum())
    surprisals = Surprisals.of(spectrum, samples, equal_pairs)
    if np.count_nonzero(changes.rows) < FEWEST_GROUPS:
        return None
    total = sample_sums(spectrum, surprisals)
    estimate = entropy_of_sums(total, surprisals, samples)
    unequal_rows = max(0.0, estimate - chao_wang_jost_by_samples(spectrum, samples))
    added = max(0.0, estimate - plug_in(spectrum))
    even = TOO_EVEN * added / max(1, spectrum.distinct - 1)
    return Jackknifed(
        estimate,
        lowest=estimate - TOO_HIGH * unequal_rows - even,
        highest=estimate + TOO_LOW * added,
        without=entropies_without_groups(total, samples, changes, surprisals),
        samples=changes.samples,
    )
