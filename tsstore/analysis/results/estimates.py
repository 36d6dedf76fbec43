"""What was counted in a layer, and the estimates that follow, with errors that say what to do."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tsstore.errors import AnalysisError
from tsstore.statistics.bounds import entropy_lower_bound, entropy_lower_bound_by_groups
from tsstore.statistics.estimators import ESTIMATORS, cap, plug_in, renyi_unbiased
from tsstore.statistics.independence import dependent_draws
from tsstore.statistics.intervals import (
    FEWEST_GROUPS,
    Interval,
    Jackknifed,
    jackknifed_entropy,
)
from tsstore.statistics.jackknife import (
    SpectrumDelta,
    shares_seen_once,
    standard_error,
    student_quantile,
)
from tsstore.statistics.rarefaction import Rarefaction, scatter_at
from tsstore.statistics.special import check_level
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import Verdict, verdict

SAMPLE_BASED = "sample-based"
PLUG_IN = "plug-in"
UNBIASED = "unbiased"
NAMES = (SAMPLE_BASED, *ESTIMATORS, UNBIASED)


PER_ROW, PER_SAMPLE = "per row", "per sample"
"""Whose entropy is estimated: that of any row, so that samples weigh by their positions; or that of
a row of a sample that was drawn first, so that samples of different length weigh the same."""


FEWEST_CLUSTERS = 0.95
"""Of the samples: where clusters are fewer, samples are known to depend on each other."""


@dataclass(frozen=True)
class LayerCounts:
    """What was counted in one layer, and what is worked out of it once.

    Attributes
    ----------
    name, neurons
        Public name of the layer; bits of a state.
    samples
        Number of samples.
    spectrum
        Distinct states by multiplicity k (rows) and incidence q (samples).
    equal_pairs_within_samples, pairs_within_samples
        Pairs of rows of one sample: those that are equal, and all.
    collision_bound
        Probability, at most, that any two states were taken for one; 0 if counting was exact.
    threshold, sampling
        As the user gave it; what was left out on purpose, None if nothing was.
    changes
        What leaving each group of samples out changes in the spectrum; None if groups were not told
        apart.
    clusters
        Number of clusters, samples of one of which depend on each other; None if each sample is on
        its own, or it is not known.
    dependence
        What another layer shows against the same samples as independent draws, in a phrase; or
        empty.
    """

    name: str
    neurons: int
    samples: int
    spectrum: Spectrum
    equal_pairs_within_samples: int = 0
    pairs_within_samples: int = 0
    collision_bound: float = 0.0
    threshold: float = 0.0
    sampling: Mapping[str, Any] | None = None
    changes: SpectrumDelta | None = None
    clusters: int | None = None
    dependence: str = ""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.spectrum.rows

    @property
    def distinct(self) -> int:
        """Number of distinct states."""
        return self.spectrum.distinct

    @property
    def target(self) -> str:
        """What is estimated, where samples differ in length: `PER_ROW` or `PER_SAMPLE`."""
        sampling = self.sampling or {}
        return PER_SAMPLE if sampling.get("target") == PER_SAMPLE else PER_ROW

    @property
    def max_entropy(self) -> int:
        """Most bits that the layer could have: one for each neuron."""
        return self.neurons

    @property
    def cap(self) -> float:
        """Most bits that a plug-in of so many rows can show: min(neurons, log2 rows)."""
        return cap(self.neurons, self.rows)

    @cached_property
    def estimated(self) -> Jackknifed:
        """The default estimate of the entropy, and those without each group of samples."""
        return jackknifed_entropy(
            self.spectrum,
            self.samples,
            self.changes,
            neurons=self.neurons,
            equal_pairs_within_samples=self.equal_pairs_within_samples,
            clusters=self.clusters,
        )

    @cached_property
    def own_dependence(self) -> str:
        """What this layer shows against the samples as independent draws; empty if nothing does.

        Those of clusters are none, and break the rule with good reason.
        """
        if self.clusters is not None and self.clusters < FEWEST_CLUSTERS * self.samples:
            return ""
        within = self.pairs_within_samples
        return dependent_draws(self.spectrum, self.samples, self.changes, within) or ""

    @cached_property
    def judged(self) -> Verdict:
        """Whether the samples suffice, and why."""
        doubts = [found for found in (self.own_dependence, self.dependence) if found]
        of = self.spectrum, self.samples, self.estimated, self.neurons
        return verdict(*of, clusters=self.clusters, doubts=doubts)


class Rarefied(NamedTuple):
    """What so many of the samples show on average.

    Attributes
    ----------
    samples
        How many.
    distinct
        Distinct states.
    incidence_entropy
        Entropy, in bits, of the states' shares of all incidences. It is the plug-in entropy of the
        rows where a sample has one position; elsewhere it counts a state once a sample, and serves
        for comparison alone.
    coverage
        Share of a new sample's incidences that the states make up; None if there is one sample.
    distinct_interval, incidence_entropy_interval
        Confidence intervals, by groups of samples, for what so many samples show on average; None
        where groups were not told apart, fewer than five of them hold samples, there is one state,
        or none was seen in two samples.
    """

    samples: int
    distinct: float
    incidence_entropy: float
    coverage: float | None
    distinct_interval: Interval | None = None
    incidence_entropy_interval: Interval | None = None


def lower_bound(counts: LayerCounts) -> float:
    """Return the bits that the entropy exceeds with 95 % confidence, if it is to be had."""
    if counts.changes is not None:
        return entropy_lower_bound_by_groups(
            counts.spectrum, counts.samples, counts.changes, clusters=counts.clusters
        )
    if counts.clusters is not None and counts.clusters < counts.samples:
        return 0.0  # Which samples depend on each other is known to the groups alone.
    return entropy_lower_bound(
        counts.spectrum,
        equal_pairs_within_samples=counts.equal_pairs_within_samples,
        pairs_within_samples=counts.pairs_within_samples,
    )


def seen_once_error(counts: LayerCounts) -> float | None:
    """Return the standard error of the share of incidences in states of one sample."""
    if counts.changes is None or np.count_nonzero(counts.changes.rows) < FEWEST_GROUPS:
        return None
    return standard_error(shares_seen_once(counts.spectrum, counts.changes))


def rarefied(counts: LayerCounts, sizes: Sequence[int], level: float) -> list[Rarefied]:
    """Return what fewer samples would have shown, of each size, with intervals of a level."""
    check_level(level)
    sizes = [_size(size, counts.samples) for size in sizes]
    fewer = Rarefaction(counts.spectrum, counts.samples)
    found = [
        Rarefied(size, fewer.richness(size), fewer.entropy(size), fewer.coverage(size))
        for size in sizes
    ]
    changes, spectrum = counts.changes, counts.spectrum
    # One state, or samples that are all alike in what they show, do not scatter.
    if changes is None or spectrum.distinct == 1 or spectrum.incidence.max() == 1:
        return found
    if (groups := int(np.count_nonzero(changes.rows))) < FEWEST_GROUPS:
        return found
    reach = student_quantile(level, groups - 1)
    scatters = scatter_at(spectrum, counts.samples, changes, sizes)
    return [
        one._replace(
            distinct_interval=_about(one.distinct, scatter.distinct, reach, level),
            incidence_entropy_interval=_about(
                one.incidence_entropy, scatter.incidence_entropy, reach, level
            ),
        )
        for one, scatter in zip(found, scatters, strict=True)
    ]


def curve_sizes(samples: int, points: int) -> list[int]:
    """Return numbers of samples from 1 to all, each about as many times the last one."""
    if not (isinstance(points, numbers.Integral) and points > 1):
        raise AnalysisError(f"a curve has a whole number of points, at least 2: found {points!r}")
    return np.unique(np.geomspace(1, samples, int(points)).round().astype(np.int64)).tolist()


def _size(size: int, samples: int) -> int:
    if not (isinstance(size, numbers.Integral) and 1 <= size <= samples):
        raise AnalysisError(
            f"{size!r} samples were asked for, of {samples:,}; ask for a whole number from 1 to "
            f"{samples:,}"
        )
    return int(size)


def _about(estimate: float, error: float, reach: float, level: float) -> Interval:
    lower = max(0.0, estimate - reach * error)
    return Interval(estimate, lower, estimate + reach * error, error, level)


def entropy_by_rows(spectrum: Spectrum, estimator: str, alpha: float) -> float:
    """Return the estimate of a name, which takes each row for a draw of its own, in bits.

    `LayerResult.entropy` says which there are of which orders `alpha`, and what is an error.
    """
    if estimator not in NAMES:
        raise AnalysisError(
            f"there is no estimator {estimator!r:.80}; there are {', '.join(map(repr, NAMES))}"
        )
    if estimator == PLUG_IN:
        return plug_in(spectrum, alpha)
    if estimator == UNBIASED:
        return _unbiased(spectrum, alpha)
    if alpha != 1:
        raise AnalysisError(
            f"the estimator {estimator!r} is of order 1, Shannon's, and alpha is {alpha}; of other "
            f"orders there are {PLUG_IN!r}, and {UNBIASED!r} if they are whole and at least 2"
        )
    return ESTIMATORS[estimator](spectrum)


def _unbiased(spectrum: Spectrum, alpha: float) -> float:
    if not (alpha >= 2 and float(alpha).is_integer()):
        raise AnalysisError(
            f"the estimator {UNBIASED!r} is of whole orders from 2 up, and alpha is {alpha}; of "
            f"other orders there is {PLUG_IN!r}"
        )
    bits = renyi_unbiased(spectrum, alpha)
    if bits is None:
        raise AnalysisError(
            f"no state has {alpha:g} rows, so that the estimator {UNBIASED!r} of order {alpha:g} "
            "cannot tell; take a smaller order, or more samples"
        )
    return bits
