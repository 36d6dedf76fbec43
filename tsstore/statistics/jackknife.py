"""How much a number scatters, by leaving groups of samples out: the delete-a-group jackknife.

The samples are dealt at random into G groups, and the number of interest is computed G times, each
time without one group (Quenouille 1956; Shao and Tu 1995, section 2.3). With T_g the number without
group g and T their mean,

    standard error**2 = (G - 1) / G  sum over g of (T_g - T)**2.

Whole samples are left out, so that rows of one sample may repeat each other as they like. Where
samples themselves come in clusters, such as images of one patient, whole clusters are dealt. A
group without samples is as if it were not there; one that has more samples than others counts for
more, which makes the standard error a little too large.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tsstore.statistics.by_samples import SampleSums, Surprisals
from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.numerics import FloatArray, check_level
from tsstore.statistics.spectrum import IntArray, Spectrum

FEWEST_GROUPS = 2
"""One group that holds all samples tells nothing of how much they scatter."""


def standard_error(values: npt.ArrayLike) -> float:
    """Return the standard error of an estimate, from those without each group of samples.

    Parameters
    ----------
    values
        Numbers of shape (groups,), one for each group that holds samples.

    Raises
    ------
    ValueError
        If there are fewer than two.
    """
    without = np.asarray(values, dtype=np.float64)
    if without.size < FEWEST_GROUPS:
        raise ValueError(f"a jackknife needs at least two groups: found {without.size}")
    squares = math.fsum((without - without.mean()) ** 2)
    return math.sqrt(squares * (without.size - 1) / without.size)


def group_values(
    spectrum: Spectrum,
    samples: int,
    changes: GroupChanges,
    statistic: Callable[[Spectrum, int], float],
) -> FloatArray:
    """Return any statistic of all samples but those of each group.

    Parameters
    ----------
    spectrum, samples, changes
        What was counted, of how many samples, and what leaving each group of them out changes.
    statistic
        Takes a spectrum and its number of samples.

    Returns
    -------
    float64 of shape (groups that hold samples,)
        For `standard_error`.

    Raises
    ------
    ValueError
        If the changes are those of other samples.
    """
    check_changes(spectrum, samples, changes)
    return np.array(
        [
            statistic(changes.without(spectrum, int(group)), samples - int(changes.samples[group]))
            for group in np.flatnonzero(changes.samples)
        ],
        dtype=np.float64,
    )


def sums_without_groups(
    total: SampleSums, changes: GroupChanges, surprisals: Surprisals
) -> list[SampleSums]:
    """Return what the default estimate is made of, of all samples but those of each group.

    Parameters
    ----------
    total
        The sums of all samples.
    changes
        What leaving each group of them out changes.
    surprisals
        With what the sums were made; the spread of a rare state's rows is that of all samples
        throughout.

    Returns
    -------
    list of SampleSums
        One a group; that of all samples for a group that holds none.

    Notes
    -----
    No spectrum is made without a group: the sums add up, and so do their changes.
    """
    k, q, states = changes.multiplicity, changes.incidence, changes.states
    once, twice = q == 1, q == 2
    added = (
        _by_group(changes, states * (k * surprisals.nats(k, q))),
        _by_group(changes, states[once] * k[once], once),
        _by_group(changes, states[once], once),
        _by_group(changes, states[twice], twice),
    )
    return [
        SampleSums(
            total.rows - int(changes.rows[group]),
            total.surprisal + surprisal,
            round(total.rows_in_single_samples + rows_in_single),
            round(total.once + seen_once),
            round(total.twice + seen_twice),
        )
        for group, (surprisal, rows_in_single, seen_once, seen_twice) in enumerate(
            zip(*added, strict=True)
        )
    ]


def shares_seen_once(spectrum: Spectrum, changes: GroupChanges) -> FloatArray:
    """Return the share of incidences in states of one sample, without each group with samples."""
    once = changes.incidence == 1
    single = int(spectrum.states[spectrum.incidence == 1].sum()) + np.array(
        _by_group(changes, changes.states[once], once)
    )
    held = changes.samples > 0
    shares: FloatArray = single[held] / incidences_without(spectrum, changes)[held]
    return shares


def incidences_without(spectrum: Spectrum, changes: GroupChanges) -> FloatArray:
    """Return the sum of all states' incidences without each group, float64 (groups,)."""
    changed = np.array(_by_group(changes, changes.states * changes.incidence))
    total: FloatArray = int(spectrum.incidence @ spectrum.states) + changed
    return total


def _by_group(
    changes: GroupChanges, amounts: IntArray | FloatArray, part: npt.NDArray[np.bool_] | None = None
) -> list[float]:
    group = changes.group if part is None else changes.group[part]
    sums: list[float] = np.bincount(group, amounts, minlength=changes.groups).tolist()
    return sums


def student_quantile(level: float, degrees: float) -> float:
    """Return how many standard errors an interval of a level reaches to each side.

    Raises
    ------
    ValueError
        If level is not between 0 and 1.
    """
    from scipy.special import stdtrit

    check_level(level)
    return float(stdtrit(degrees, (1 + level) / 2))


def check_changes(spectrum: Spectrum, samples: int, changes: GroupChanges) -> None:
    """Raise ValueError if the changes are not those of the samples that were counted."""
    found = int(changes.samples.sum()), int(changes.rows.sum())
    if found != (samples, spectrum.rows):
        raise ValueError(
            f"the groups hold {found[0]} samples and {found[1]} rows, but {samples} samples and "
            f"{spectrum.rows} rows were counted; pass the changes that were counted with them"
        )
