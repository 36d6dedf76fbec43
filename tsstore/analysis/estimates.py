"""Estimates by name, and what fewer samples would have shown, with errors that say what to do."""

from __future__ import annotations

from typing import NamedTuple

from tsstore.errors import AnalysisError
from tsstore.statistics.coverage import coverage_at
from tsstore.statistics.diversity import renyi_unbiased
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.estimators import ESTIMATORS
from tsstore.statistics.rarefaction import entropy_at, richness_at
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
    """

    samples: int
    distinct: float
    incidence_entropy: float
    coverage: float | None


def rarefied(spectrum: Spectrum, samples: int, fewer: int) -> Rarefied:
    """Return what fewer samples would have shown.

    Parameters
    ----------
    spectrum, samples
        What was counted, and of how many samples.
    fewer
        From 1 to all samples.

    Raises
    ------
    AnalysisError
        If there are not so many samples, or fewer than one was asked for.
    """
    if not 1 <= fewer <= samples:
        raise AnalysisError(
            f"there are {samples} samples, and {fewer} were asked for; ask for 1 to {samples}"
        )
    return Rarefied(
        fewer,
        richness_at(spectrum, fewer, samples),
        entropy_at(spectrum, fewer, samples),
        coverage_at(spectrum, fewer, samples),
    )


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
    # No state has more rows than there are: a larger order only takes longer to say so.
    bits = renyi_unbiased(spectrum, int(min(alpha, spectrum.rows + 1)))
    if bits is None:
        raise AnalysisError(
            f"no state has {alpha:g} rows, so that the estimator {UNBIASED!r} of order {alpha:g} "
            "cannot tell; take a smaller order, or more samples"
        )
    return bits
