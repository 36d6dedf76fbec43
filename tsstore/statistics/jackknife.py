"""How much a number scatters, by leaving groups of samples out: the delete-a-group jackknife.

The samples are dealt at random into G groups, and the number of interest is computed G times, each
time without one group (Quenouille 1956; Shao and Tu 1995, section 2.3). With T_g the number without
group g and T their mean,

    standard error**2 = (G - 1) / G  sum over g of (T_g - T)**2.

Whole samples are left out, so that rows of one sample may repeat each other as they like. A group
without samples is as if it were not there; one that has more samples than others counts for more,
which makes the standard error a little too large.

*Clusters.* Where samples come in clusters, such as images of one patient, groups hold whole
clusters, and tell how many rows are in states that only one cluster has shown: a state of q samples
that are independent of each other lies in one of G groups with probability G**(1 - q); what lies in
one group beyond that is the clusters' own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tsstore.statistics.sample_estimator import SampleSums, Surprisals
from tsstore.statistics.special import FloatArray, check_level
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.spectrum_delta import SpectrumDelta

FEWEST_GROUPS = 2
"""One group that holds all samples tells nothing of how much they scatter."""


def standard_error(values: npt.ArrayLike) -> float:
    """Return the standard error of an estimate, from those without each group of samples.

    One value for each group that holds samples; ValueError if there are fewer than two.
    """
    without = np.asarray(values, dtype=np.float64)
    if without.size < FEWEST_GROUPS:
        raise ValueError(f"a jackknife needs at least two groups: found {without.size}")
    squares = math.fsum((without - without.mean()) ** 2)
    return math.sqrt(squares * (without.size - 1) / without.size)


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


def shares_seen_once(spectrum: Spectrum, changes: SpectrumDelta) -> FloatArray:
    """Return the share of incidences in states of one sample, without each group with samples."""
    once = changes.states * (changes.incidence == 1)
    seen_once = int(spectrum.states[spectrum.incidence == 1].sum())
    single = seen_once + changes.by_group(once)
    held = changes.samples > 0
    shares: FloatArray = single[held] / incidences_without(spectrum, changes)[held]
    return shares


def incidences_without(spectrum: Spectrum, changes: SpectrumDelta) -> FloatArray:
    """Return the sum of all states' incidences without each group, float64 (groups,)."""
    changed = changes.by_group(changes.states * changes.incidence)
    return int(spectrum.incidence @ spectrum.states) + changed


def student_quantile(level: float, degrees: float) -> float:
    """Return how many standard errors an interval of a level, from 0 to 1, reaches to each side."""
    from scipy.special import stdtrit

    check_level(level)
    return float(stdtrit(degrees, (1 + level) / 2))


def check_changes(spectrum: Spectrum, samples: int, changes: SpectrumDelta) -> None:
    """Raise ValueError if the changes are not those of the samples that were counted."""
    found = int(changes.samples.sum()), int(changes.rows.sum())
    if found != (samples, spectrum.rows):
        raise ValueError(
            f"the groups hold {found[0]} samples and {found[1]} rows, but {samples} samples and "
            f"{spectrum.rows} rows were counted; pass the changes that were counted with them"
        )


def rows_in_single_clusters(spectrum: Spectrum, changes: SpectrumDelta) -> int:
    """Return how many rows, at least about, are in states seen in one cluster only.

    Those in states of one sample, and in as many more states as lie in one group only, beyond what
    independent samples would do. Which states these are is not known: the ones seen in the fewest
    samples count.
    """
    groups = int(np.count_nonzero(changes.rows))
    several = spectrum.incidence > 1
    incidence, states = spectrum.incidence[several], spectrum.states[several]
    # Without its only group a state is gone; without one of several it is another entry.
    in_one_group = -int(changes.states.sum()) - int(spectrum.states[~several].sum())
    by_chance = float(states @ float(max(groups, 1)) ** (1.0 - incidence))
    own = max(0, round(in_one_group - by_chance))
    order = np.lexsort((spectrum.multiplicity[several], incidence))
    before = np.cumsum(states[order]) - states[order]
    taken = np.clip(own - before, 0, states[order])
    return spectrum.rows_in_single_samples + int(taken @ spectrum.multiplicity[several][order])
