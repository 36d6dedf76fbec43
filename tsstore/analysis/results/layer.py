"""What was counted in one layer, and the numbers that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tsstore.analysis.results.estimates import (
    SAMPLE_BASED,
    Rarefied,
    curve_sizes,
    entropy_by_rows,
    rarefied,
)
from tsstore.statistics import entropy as entropies
from tsstore.statistics.coverage import coverage, coverage_interval
from tsstore.statistics.efficiency import efficiency
from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.independence import dependent_draws
from tsstore.statistics.intervals import Interval, Jackknifed, jackknifed_entropy
from tsstore.statistics.jackknife import FEWEST_GROUPS, shares_seen_once, standard_error
from tsstore.statistics.lower_bound import entropy_lower_bound, entropy_lower_bound_by_groups
from tsstore.statistics.numerics import check_level
from tsstore.statistics.richness import Richness, chao
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import SAMPLE_LIMITED, Verdict, verdict

PER_ROW, PER_SAMPLE = "per row", "per sample"
"""Whose entropy is estimated: that of any row, so that samples weigh by their positions; or that of
a row of a sample that was drawn first, so that samples of different length weigh the same."""

FEWEST_CLUSTERS = 0.95
"""Of the samples: where clusters are fewer, samples are known to depend on each other."""

MOST_NEURONS_OF_A_LIMIT = 1023
"""The states that more neurons can have are more than a float can be, and limit nothing."""


@dataclass(frozen=True)
class LayerCounts:
    """What was counted in one layer.

    Attributes
    ----------
    name
        Public name of the layer.
    neurons
        Number of neurons: bits of a state.
    samples
        Number of samples.
    spectrum
        Distinct states by multiplicity k (rows) and incidence q (samples).
    equal_pairs_within_samples, pairs_within_samples
        Pairs of rows of one sample: those that are equal, and all.
    collision_bound
        Probability, at most, that any two states were taken for one; 0 if counting was exact.
    threshold
        As the user gave it.
    sampling
        What was left out on purpose; None if nothing was.
    changes
        What leaving each group of samples out changes in the spectrum; None if groups were not
        told apart.
    clusters
        Number of clusters, samples of one of which depend on each other; None if each sample is
        on its own, or it is not known.
    dependence
        What another layer shows against the same samples as independent draws, in a phrase; empty
        if none does.
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
    changes: GroupChanges | None = None
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
        return entropies.cap(self.neurons, self.rows)


class LayerNumbers(LayerCounts):
    """What was counted in one layer, and the numbers that follow from it."""

    def entropy(self, estimator: str = SAMPLE_BASED, alpha: float = 1.0) -> float:
        """Return an estimate of the layer's entropy, in bits: at most one for each neuron.

        Parameters
        ----------
        estimator
            ``"sample-based"`` takes samples for what was drawn (`statistics.by_samples`). The
            others take each row for a draw of its own: ``"plug-in"``, ``"miller-madow"`` and what
            else `statistics.estimators.ESTIMATORS` names, and ``"unbiased"``.
        alpha
            Order of Rényi's entropy, from 0 to infinity; 1 is Shannon's. Of other orders there is
            the plug-in, and of whole orders from 2 up ``"unbiased"``.

        Raises
        ------
        AnalysisError
            If there is no such estimator, or not of this order, or it cannot tell: the unbiased one
            needs a state with as many rows as the order says.
        ValueError
            If alpha is negative or NaN.
        """
        if estimator == SAMPLE_BASED and alpha == 1:
            return min(self._jackknifed.estimate, float(self.neurons))
        return min(entropy_by_rows(self.spectrum, estimator, alpha), float(self.neurons))

    def efficiency(self, estimator: str = SAMPLE_BASED) -> float:
        """Return an estimate of the entropy by the neurons; raises as `entropy`."""
        return efficiency(self.entropy(estimator), self.neurons)

    def interval(self, level: float = 0.95, *, unseen_like_rare: bool = False) -> Interval | None:
        """Return a confidence interval for the entropy, in bits, about the default estimate.

        Parameters
        ----------
        level
            Nominal confidence, between 0 and 1.
        unseen_like_rare
            Assume that states not seen are about as rare as those seen once or twice, and that no
            kind of samples was missed: the interval is then narrower. It is wrong where a small
            part of the rows is very diverse, as rare classes and inputs of another kind may be.

        Returns
        -------
        Interval or None
            None if groups of samples were not told apart, fewer than five of them hold samples, or
            no state was seen in two samples. Its lower end is of no use for a sample-limited layer,
            which has `entropy_lower_bound`.

        Raises
        ------
        ValueError
            If level is not between 0 and 1.
        """
        check_level(level)
        entropy = self.jackknifed
        if entropy is None:
            return None
        return entropy.interval(level, float(self.neurons), unseen_like_rare=unseen_like_rare)

    def efficiency_interval(
        self, level: float = 0.95, *, unseen_like_rare: bool = False
    ) -> Interval | None:
        """Return a confidence interval for the efficiency; all as `interval`."""
        bits = self.interval(level, unseen_like_rare=unseen_like_rare)
        if bits is None:
            return None
        names = ("estimate", "lower", "upper", "standard_error")
        return replace(bits, **{name: getattr(bits, name) / self.neurons for name in names})

    @property
    def jackknifed(self) -> Jackknifed | None:
        """The default estimate, and those without each group of samples; None as `interval`."""
        return self._jackknifed if self._jackknifed.scatter_known else None

    @property
    def margin(self) -> float | None:
        """How far a 95 % interval reaches for the scatter of the estimate alone, in bits.

        None where `interval` is.
        """
        return None if self.jackknifed is None else self.jackknifed.margin()

    @cached_property
    def entropy_lower_bound(self) -> float:
        """Bits that the layer's entropy exceeds with 95 % confidence, however few the samples."""
        return min(self._entropy_lower_bound(), float(self.neurons))

    @property
    def efficiency_lower_bound(self) -> float:
        """The lower bound of the entropy by the neurons."""
        return efficiency(self.entropy_lower_bound, self.neurons)

    @property
    def coverage(self) -> float | None:
        """Share of a new sample's states that were seen; None if there is one sample."""
        return coverage(self.spectrum, self.samples)

    def richness(self, level: float = 0.95) -> Richness:
        """Return how many states there are at least, with those never seen (Chao2)."""
        limit = 2.0**self.neurons if self.neurons <= MOST_NEURONS_OF_A_LIMIT else None
        return chao(self.spectrum, self.samples, limit, level)

    def coverage_interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Return a confidence interval for the coverage; None if there is one sample."""
        return coverage_interval(self.spectrum, level, self.samples, self._seen_once_error())

    def rarefied(self, samples: int, level: float = 0.95) -> Rarefied:
        """Return what fewer samples would have shown: compare layers and runs at equal numbers.

        With intervals where groups of samples were told apart. AnalysisError if there are not so
        many samples; ValueError if level is not between 0 and 1.
        """
        return rarefied(self.spectrum, self.samples, [samples], self.changes, level)[0]

    def rarefaction_curve(self, points: int = 30, level: float = 0.95) -> list[Rarefied]:
        """Return what 1 to all samples show, at some numbers of them; raises as `rarefied`."""
        sizes = curve_sizes(self.samples, points)
        return rarefied(self.spectrum, self.samples, sizes, self.changes, level)

    @property
    def verdict(self) -> str:
        """``"saturated"``, ``"usable"`` or ``"sample-limited"``."""
        return self._verdict.name

    @property
    def reason(self) -> str:
        """The verdict's reason, in one sentence."""
        return self._verdict.reason

    @property
    def samples_needed(self) -> int | None:
        """About how many samples make the layer usable; None if more than 3 times these."""
        return self._verdict.samples_needed

    @property
    def needs(self) -> str:
        """What a sample-limited layer needs, in words; empty if it is not."""
        return self._verdict.needs

    @property
    def sample_limited(self) -> bool:
        """Whether the samples are too few to estimate the layer's entropy."""
        return self.verdict == SAMPLE_LIMITED

    @cached_property
    def own_dependence(self) -> str:
        """What this layer shows against the samples as independent draws; empty if nothing does.

        Those of clusters are none, and break the rule with good reason.
        """
        if self.clusters is not None and self.clusters < FEWEST_CLUSTERS * self.samples:
            return ""
        found = dependent_draws(
            self.spectrum, self.samples, self.changes, self.pairs_within_samples
        )
        return found or ""

    @property
    def shown_efficiency(self) -> float:
        """The default estimate, or the lower bound where the layer is sample-limited."""
        return self.efficiency_lower_bound if self.sample_limited else self.efficiency()

    @cached_property
    def _jackknifed(self) -> Jackknifed:
        return jackknifed_entropy(
            self.spectrum,
            self.samples,
            self.changes,
            neurons=self.neurons,
            equal_pairs_within_samples=self.equal_pairs_within_samples,
            clusters=self.clusters,
        )

    @cached_property
    def _verdict(self) -> Verdict:
        return verdict(
            self.spectrum,
            self.samples,
            self._jackknifed,
            self.neurons,
            clusters=self.clusters,
            doubts=[found for found in (self.own_dependence, self.dependence) if found],
        )

    def _seen_once_error(self) -> float | None:
        """Return the standard error of the share of incidences in states of one sample."""
        if self.changes is None or np.count_nonzero(self.changes.rows) < FEWEST_GROUPS:
            return None
        return standard_error(shares_seen_once(self.spectrum, self.changes))

    def _entropy_lower_bound(self) -> float:
        if self.changes is not None:
            return entropy_lower_bound_by_groups(
                self.spectrum, self.samples, self.changes, clusters=self.clusters
            )
        if self.clusters is not None and self.clusters < self.samples:
            return 0.0  # Which samples depend on each other is known to the groups alone.
        return entropy_lower_bound(
            self.spectrum,
            equal_pairs_within_samples=self.equal_pairs_within_samples,
            pairs_within_samples=self.pairs_within_samples,
        )
