"""Estimates by name, and what fewer samples would have shown, with errors that say what to do."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tsstore.errors import AnalysisError
from tsstore.statistics.diversity import renyi_unbiased
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.estimators import ESTIMATORS
from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.intervals import FEWEST_GROUPS, Interval
from tsstore.statistics.jackknife import student_quantile
from tsstore.statistics.numerics import check_level
from tsstore.statistics.rarefaction import Rarefaction
from tsstore.statistics.rarefaction_bands import scatter_at
from tsstore.statistics.spectrum import Spectrum

SAMPLE_BASED = "sample-based"
PLUG_IN = "plug-in"
UNBIASED = "unbiased"
NAMES = (SAMPLE_BASED, *ESTIMATORS, UNBIASED)


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


def rarefied(
    spectrum: Spectrum,
    samples: int,
    sizes: Sequence[int],
    changes: GroupChanges | None = None,
    level: float = 0.95,
) -> list[Rarefied]:
    """Return what fewer samples would have shown, of each size.

    Parameters
    ----------
    spectrum, samples
        What was counted, and of how many samples.
    sizes
        Numbers of samples, each from 1 to all.
    changes
        What leaving each group of samples out changes, for intervals.
    level
        Their nominal confidence, between 0 and 1.

    Raises
    ------
    AnalysisError
        If there are not so many samples, or a size is below one or no whole number.
    ValueError
        If level is not between 0 and 1.
    """
    check_level(level)
    sizes = [_size(size, samples) for size in sizes]
    fewer = Rarefaction(spectrum, samples)
    found = [
        Rarefied(size, fewer.richness(size), fewer.entropy(size), fewer.coverage(size))
        for size in sizes
    ]
    if changes is None or not _scatter_known(spectrum, changes):
        return found
    groups = int(np.count_nonzero(changes.rows))
    reach = student_quantile(level, groups - 1)
    scatters = scatter_at(spectrum, samples, changes, sizes)
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
    """Return numbers of samples from 1 to all, each about as many times the last one.

    Raises
    ------
    AnalysisError
        If fewer than two points are asked for.
    """
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


def _scatter_known(spectrum: Spectrum, changes: GroupChanges) -> bool:
    """Return whether groups are enough, and not all samples alike in what they show."""
    scatters = spectrum.distinct > 1 and int(spectrum.incidence.max()) > 1
    return scatters and int(np.count_nonzero(changes.rows)) >= FEWEST_GROUPS


def _about(estimate: float, error: float, reach: float, level: float) -> Interval:
    lower = max(0.0, estimate - reach * error)
    return Interval(estimate, lower, estimate + reach * error, error, level)


def entropy_by_rows(spectrum: Spectrum, estimator: str, alpha: float) -> float:
    """Return the estimate of a name, which takes each row for a draw of its own, in bits.

    Parameters
    ----------
    spectrum
        What was counted.
    estimator
        One of `ESTIMATORS`, or ``"unbiased"``.
    alpha
        Order of Rényi's entropy, from 0 to infinity: 1 for all but ``"plug-in"``, of which there is
        any, and ``"unbiased"``, of which there are whole ones from 2 up.

    Raises
    ------
    AnalysisError
        If there is no such estimator, or not of this order, or the unbiased one cannot tell.
    ValueError
        If alpha is negative or NaN.
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
