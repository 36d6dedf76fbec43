"""Sample coverage: how much of the next draw, if there were one, would be in states seen already.

Good and Turing's estimate of the rest is the share of the draws in states seen once. Chao and
Jost (2012) use the states seen twice as well, and follow coverage back to fewer draws and on to
more. Comparing networks at equal coverage asks less of the sample sizes than at equal size.
"""

from __future__ import annotations

import bisect
import math
from statistics import NormalDist

import numpy as np

from tsstore.statistics.draws import Draws, draws_at_least_one
from tsstore.statistics.hypergeometric import log_avoidance
from tsstore.statistics.spectrum import Spectrum

LARGEST_EXACT = 2.0**62
"""Beyond it, numbers of draws are floats that no longer tell neighbours apart."""


def coverage(spectrum: Spectrum, samples: int | None = None) -> float | None:
    """Return the estimated share of all rows that the states seen make up.

    Parameters
    ----------
    spectrum
        What was counted.
    samples
        How many samples there were, to count by samples; None to count by rows.

    Returns
    -------
    float or None
        From 0 to 1; None for a single draw, of which nothing can be told.

    Raises
    ------
    ValueError
        If the spectrum has no rows, or a state occurs in more samples than there were.

    Notes
    -----
    ((U - f1) + f1 A) / U, U being the total of the counts and A as in `tsstore.statistics.unseen`
    (Chao and Jost 2012, Ecology 93; by samples Chao et al. 2014, Ecological Monographs 84).
    Where that A is not defined this is Turing's (U - f1) / U: 1 if no state was seen once, and
    (U - 1) / U if one was and none twice, where iNEXT says 1.
    """
    observed = Draws.of(spectrum, samples)
    return None if observed.number == 1 else _coverage_at(observed, observed.number)


def coverage_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float | None:
    """Return the coverage to expect of fewer or more draws.

    Parameters
    ----------
    spectrum
        What was counted.
    draws
        m, at least 1: rows, or samples if samples is given.
    samples
        How many samples there were, to count by samples; None to count by rows.

    Returns
    -------
    float or None
        From 0 to 1; None if there was a single draw.

    Raises
    ------
    ValueError
        As `coverage`, or if draws is below 1.

    Notes
    -----
    Rarefied (m < n): the sum over states of j/U [1 - C(n - j, m) / C(n - 1, m)], without bias.
    Extrapolated: 1 - f1/U (1 - A)**(m - n + 1), which should not be trusted far beyond 2 n.
    Sources as `coverage`.
    """
    observed, m = Draws.of(spectrum, samples), draws_at_least_one(draws)
    return None if observed.number == 1 else _coverage_at(observed, m)


def draws_for_coverage(
    spectrum: Spectrum, target: float, samples: int | None = None
) -> float | None:
    """Return the fewest draws whose coverage is to be expected to reach a target.

    Parameters
    ----------
    spectrum
        What was counted.
    target
        The coverage, between 0 and 1.
    samples
        How many samples there were, to count by samples; None to count by rows.

    Returns
    -------
    float or None
        A whole number of rows, or of samples if samples is given. Infinity if the states seen
        once and twice do not say that further draws would reach the target; None if there was a
        single draw.

    Raises
    ------
    ValueError
        As `coverage`, or if the target is not between 0 and 1.

    Notes
    -----
    The inverse of `coverage_at`, rounded up. Beyond 2**62 it is no longer exact.
    """
    if not 0 < target < 1:
        raise ValueError(f"the target must be between 0 and 1: found {target}")
    observed = Draws.of(spectrum, samples)
    if observed.number == 1:
        return None
    most = observed.number
    if _coverage_at(observed, most) < target:
        estimate = _extrapolated_draws(observed, target)
        if estimate > LARGEST_EXACT:
            return estimate
        # The estimate is rounded; where coverage reaches the target is looked up about it.
        most = math.ceil(estimate) + 1
    return 1 + bisect.bisect_left(
        range(1, most + 1), target, hi=most - 1, key=lambda draws: _coverage_at(observed, draws)
    )


def coverage_interval(spectrum: Spectrum, level: float = 0.95) -> tuple[float, float] | None:
    """Return a confidence interval of Turing's coverage, by rows.

    Parameters
    ----------
    spectrum
        What was counted. With several positions a sample the interval is too narrow, because
        it takes the rows for independent draws.
    level
        Nominal confidence, between 0 and 1.

    Returns
    -------
    tuple of float or None
        Lower and upper limit, from 0 to 1; None for a single row.

    Raises
    ------
    ValueError
        If the spectrum has no rows, or level is not between 0 and 1.

    Notes
    -----
    1 - f1/n -+ z sqrt([f1 (n - f1) + 2 n f2] / n**3) (Esty 1983, Annals of Statistics 11). The
    normal approximation asks for many states seen once.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1: found {level}")
    observed = Draws.of(spectrum)
    n, once = observed.number, observed.once
    if n == 1:
        return None
    center = (n - once) / n
    variance = (once * (n - once) + 2 * n * observed.twice) / n**3
    reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance)
    return max(0.0, center - reach), min(1.0, center + reach)


def _coverage_at(observed: Draws, draws: int) -> float:
    if draws < observed.number:
        missing = log_avoidance(observed.counts - 1, draws, observed.number - 1)
        return math.fsum(observed.weights * -np.expm1(missing)) / observed.total
    once = observed.once
    decay = 0.0 if observed.unseen is None else observed.unseen.decay
    found_again = -math.expm1(-decay * (draws - observed.number + 1))
    return ((observed.total - once) + once * found_again) / observed.total


def _extrapolated_draws(observed: Draws, target: float) -> float:
    """Solve 1 - f1/U exp(-a (m - n + 1)) = target for m."""
    if observed.unseen is None:
        return math.inf
    missing_now = math.log(observed.once / observed.total) - math.log1p(-target)
    return observed.number - 1 + missing_now / observed.unseen.decay
