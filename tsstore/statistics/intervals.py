"""Confidence intervals for entropies, by leaving groups of samples out.

*Scatter.* The standard error is that of the delete-a-group jackknife (`jackknife`). For an
interval it is taken t times, t being Student's quantile with one degree of freedom less than there
are groups that hold samples: e.

*What was missed.* How high the entropy is on average where states not seen are as rare as they can
be, and how far further it may reach, up and down, for kinds of samples that were not drawn,
`missed` derives. Scatter and what was missed are independent risks, so that their reaches are added
as squares (Zou and Donner 2008):

    from  estimate - C / 4 - E - root of (e**2 + (what missed samples take away)**2)
      to  highest on average   + root of (e**2 + (what missed samples add)**2).

C is the part of the estimate that is due to unequal rows (the last term of `sample_estimator`);
that part can be too large, where the rows of rare states are more equal than those of others, or
have a heavy tail. A quarter was chosen by simulation: `benchmarks/estimators.py`.

E = 4 (estimate - plug-in) / (S - 1), with S the number of distinct states, is for a handful of
states that are nearly equally frequent. There the entropy is at its largest and does not change, to
first order, with their shares, so that the jackknife sees next to no scatter where the shares
happen to come out even. What they took the entropy below its largest is, 2 n ln 2 times, about
chi-squared with S - 1 degrees of freedom; estimate - plug-in is about (S - 1) / (2 n ln 2), and so
this is where two standard deviations of one of the S - 1 directions lead, squared.

*Unseen states like the rare ones.* Whoever is ready to assume that states not seen are about as
rare as those seen once or twice, and that no kind of samples was missed, has a narrower interval,

    from  estimate - C / 4 - E - e    to  estimate + (estimate - plug-in) / 2 + e.

The plug-in is too low, the estimate mends most of that, and under the assumption it mostly remains
too low: by less than half of what it mended. Half was chosen by simulation as well.

*A paired difference.* Groups that hold the same samples in both analyses are left out of both at
once. How the difference changes from group to group is its scatter, whatever the two have in
common: networks that saw the same inputs err together, and their difference scatters less than
each. Samples that only one of the two saw do no harm, as long as equal samples are in equal groups.

*An independent one.* Variances add up, and Student's t has the degrees of freedom of Welch (1947,
Biometrika 34) and Satterthwaite (1946, Biometrics Bulletin 2).

Bias, and what the samples may have missed, are not taken to cancel: the difference is at its lowest
where the first number is at its lowest and the second one at its highest. Only if asked to, the two
numbers are taken to be off alike: both at their lowest, or both at their highest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tsstore.statistics.estimators import plug_in
from tsstore.statistics.jackknife import FEWEST_GROUPS as LEAST_GROUPS
from tsstore.statistics.jackknife import (
    SpectrumDelta,
    check_changes,
    rows_in_single_clusters,
    standard_error,
    student_quantile,
)
from tsstore.statistics.missed import Missed, effective_samples
from tsstore.statistics.sample_estimator import (
    SampleSums,
    Surprisals,
    entropy_of_sums,
    sample_sums,
    sums_without_groups,
)
from tsstore.statistics.special import FloatArray
from tsstore.statistics.spectrum import IntArray, Spectrum

FEWEST_GROUPS = 5
"""Fewer groups that hold samples tell too little of how much an estimate scatters."""

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


class Reach(NamedTuple):
    """How far from the estimate the true number may be, but for scatter.

    From lowest to highest on average; from least to most if the samples missed as much as they can.
    """

    lowest: float
    highest: float
    least: float
    most: float

    def ends(self, margin: float) -> tuple[float, float]:
        """Return both ends of the interval; margin is how far it reaches for scatter."""
        lower = self.lowest - math.hypot(margin, self.lowest - self.least)
        return lower, self.highest + math.hypot(margin, self.most - self.highest)


@dataclass(frozen=True)
class Jackknifed:
    """An estimate of all samples, and those without each group of them.

    Attributes
    ----------
    lowest, highest
        How far off it may be on average, if unseen states are like the rare ones that were seen.
    without
        float64 (groups,): without each group; that of all samples for a group that holds none.
        Empty if groups were not told apart.
    samples
        int64 (groups,): the samples of each group.
    missed
        What the samples may have missed; None for nothing.
    """

    estimate: float
    lowest: float
    highest: float
    without: FloatArray
    samples: IntArray
    missed: Missed | None = None

    def interval(
        self, level: float = 0.95, largest: float = math.inf, *, unseen_like_rare: bool = False
    ) -> Interval:
        """Return the confidence interval; estimate and ends are from 0 to the largest value.

        Asked to, it assumes that unseen states are about as rare as those seen once or twice, and
        that no kind of samples was missed. ValueError if the level is not between 0 and 1, or fewer
        than two groups hold samples.
        """
        return self.within(self.reach(level, unseen_like_rare=unseen_like_rare), level, largest)

    def within(self, reach: Reach, level: float, largest: float) -> Interval:
        """Return the interval for what else the estimate may be off by; the rest as `interval`."""
        ends = (self.estimate, *reach.ends(self.margin(level)))
        estimate, lower, upper = (min(max(end, 0.0), largest) for end in ends)
        return Interval(estimate, lower, upper, self.standard_error, level)

    def reach(self, level: float = 0.95, *, unseen_like_rare: bool = False) -> Reach:
        """Return how far off the estimate may be, but for scatter; parameters as `interval`."""
        if self.missed is None or unseen_like_rare:
            return Reach(self.lowest, self.highest, self.lowest, self.highest)
        degrees = max(1, self.groups - 1)
        most = self.missed.at_most(level, student_quantile(level, degrees))
        least = self.lowest - self.missed.share(level) * self.estimate
        highest = max(self.estimate, self.missed.highest)
        return Reach(self.lowest, highest, least, max(highest, most))

    @property
    def groups(self) -> int:
        """Number of groups that hold samples."""
        return int(np.count_nonzero(self.samples))

    @property
    def scatter_known(self) -> bool:
        """Whether leaving groups out tells how much the estimate scatters.

        It takes five groups that hold samples, and a state that was seen in two samples: if none
        was, all samples look alike, and nothing scatters.
        """
        repeats = self.missed is None or self.missed.unseen < 1
        return self.groups >= FEWEST_GROUPS and repeats

    @property
    def standard_error(self) -> float:
        """How much the estimate scatters; ValueError if fewer than two groups hold samples."""
        return standard_error(self.without[self.samples > 0])

    def margin(self, level: float = 0.95) -> float:
        """Return how far an interval reaches to each side for the scatter; raises likewise."""
        return student_quantile(level, self.groups - 1) * self.standard_error


def jackknifed_entropy(
    spectrum: Spectrum,
    samples: int,
    changes: SpectrumDelta | None,
    *,
    neurons: int,
    equal_pairs_within_samples: int | None = None,
    clusters: int | None = None,
) -> Jackknifed:
    """Return the default estimate of a layer's entropy, in bits, and those without each group.

    Parameters
    ----------
    spectrum, samples
        What was counted, with incidences, and of how many samples.
    changes
        What leaving each group of them out changes; None if groups were not told apart.
    neurons
        Neurons of the layer, which limit the states that were not seen.
    equal_pairs_within_samples
        As `chao_wang_jost_by_samples`; where there are changes, these tell it.
    clusters
        How many clusters there are, samples of one of which depend on each other; groups then hold
        whole clusters. None where each sample is on its own.

    Raises
    ------
    ValueError
        If there are no rows, or the changes are those of other samples.
    """
    if changes is not None:
        check_changes(spectrum, samples, changes)
        equal_pairs_within_samples = int(changes.equal_pairs_within_samples.sum())
    pairs = 0 if changes is None else int(changes.pairs_within_samples.sum())
    surprisals = Surprisals.of(spectrum, samples, equal_pairs_within_samples)
    total = sample_sums(spectrum, surprisals)
    estimate = entropy_of_sums(total, surprisals, samples)
    unequal_rows = surprisals.bits_for_unequal_rows(spectrum)
    added = max(0.0, estimate - plug_in(spectrum))
    even = TOO_EVEN * added / max(1, spectrum.distinct - 1)
    rows_seen_once = (
        spectrum.rows_in_single_samples
        if clusters is None or changes is None
        else rows_in_single_clusters(spectrum, changes)
    )
    without, unseen_error, of_groups = _without_groups(total, samples, changes, surprisals)
    return Jackknifed(
        estimate,
        lowest=estimate - TOO_HIGH * unequal_rows - even,
        highest=estimate + TOO_LOW * added,
        without=without,
        samples=of_groups,
        missed=Missed.by(
            spectrum,
            effective_samples(clusters or samples, spectrum.rows, pairs),
            neurons,
            shown=entropy_of_sums(total._replace(once=0, twice=0), surprisals, samples),
            unseen=rows_seen_once / spectrum.rows,
            unseen_error=unseen_error,
        ),
    )


def _without_groups(
    total: SampleSums, samples: int, changes: SpectrumDelta | None, surprisals: Surprisals
) -> tuple[FloatArray, float, IntArray]:
    """Return the estimates without each group, the error of the unseen share, and their samples.

    Where fewer than two groups hold rows, nothing is left to be estimated without one.
    """
    if changes is None or np.count_nonzero(changes.rows) < LEAST_GROUPS:
        return np.zeros(0), 0.0, np.zeros(0, np.int64)
    rest = sums_without_groups(total, changes, surprisals)
    left = (samples - changes.samples).tolist()
    bits = [entropy_of_sums(sums, surprisals, m) for sums, m in zip(rest, left, strict=True)]
    unseen = np.array([sums.rows_in_single_samples / sums.rows for sums in rest])
    return np.array(bits), standard_error(unseen[changes.samples > 0]), changes.samples


Estimated = tuple[Jackknifed, Reach]
"""A number with those without each group, and how far off it may be but for scatter."""


def difference_interval(
    first: Estimated, second: Estimated, *, paired: bool, alike: bool = False, level: float = 0.95
) -> Interval:
    """Return a confidence interval for the first number less the second one.

    Paired: equal samples are in equal groups of both; else those of one are taken to be independent
    of those of the other. Alike: the two are off alike, at their lowest or at their highest at
    once. ValueError if the level is not between 0 and 1, fewer than two groups hold samples, or
    pairs are to be made of different numbers of groups.
    """
    one, other = first[0], second[0]
    error, degrees = _paired(one, other) if paired else _independent(one, other)
    reach = _reach_alike(*first, *second) if alike else _reach(first[1], second[1])
    lower, upper = reach.ends(student_quantile(level, degrees) * error)
    return Interval(one.estimate - other.estimate, lower, upper, error, level)


def _reach(first: Reach, second: Reach) -> Reach:
    return Reach(
        first.lowest - second.highest,
        first.highest - second.lowest,
        first.least - second.most,
        first.most - second.least,
    )


def _reach_alike(one: Jackknifed, first: Reach, other: Jackknifed, second: Reach) -> Reach:
    estimate = one.estimate - other.estimate
    ends = estimate, first.lowest - second.lowest, first.highest - second.highest
    lowest, highest = min(ends), max(ends)
    missed = first.least - first.lowest - second.most + second.highest
    more = first.most - first.highest - second.least + second.lowest
    return Reach(lowest, highest, lowest + missed, highest + more)


def _paired(one: Jackknifed, other: Jackknifed) -> tuple[float, float]:
    """Return standard error and degrees of freedom of what the groups change in the difference."""
    if len(one.without) != len(other.without):
        raise ValueError(
            f"pairs are made of the same groups: found {len(one.without)} and {len(other.without)}"
        )
    held = (one.samples > 0) | (other.samples > 0)
    error = standard_error((one.without - other.without)[held])
    return error, float(np.count_nonzero(held) - 1)


def _independent(one: Jackknifed, other: Jackknifed) -> tuple[float, float]:
    """Return standard error and degrees of freedom of Welch and Satterthwaite."""
    errors = one.standard_error, other.standard_error
    error = math.hypot(*errors)
    if error == 0:
        return 0.0, float(min(one.groups, other.groups) - 1)
    parts = zip(errors, (one.groups, other.groups), strict=True)
    return error, error**4 / math.fsum(part**4 / (groups - 1) for part, groups in parts)
