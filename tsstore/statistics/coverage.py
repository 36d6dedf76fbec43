"""Sample coverage: how much of the next draw, if there were one, would be in states seen already.

Good and Turing's estimate of the rest is the share of the draws in states seen once. Chao and
Jost (2012) use the states seen twice as well, and follow coverage back to fewer draws. Comparing
networks at equal coverage asks less of the sample sizes than at equal size.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from tsstore.statistics.draws import Draws
from tsstore.statistics.numerics import check_level
from tsstore.statistics.rarefaction import Rarefaction
from tsstore.statistics.spectrum import Spectrum


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
    return None if observed.number == 1 else observed.coverage


def coverage_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float | None:
    """Return the coverage to expect of fewer draws.

    Parameters
    ----------
    spectrum
        What was counted.
    draws
        m, from 1 to all: rows, or samples if samples is given.
    samples
        How many samples there were, to count by samples; None to count by rows.

    Returns
    -------
    float or None
        From 0 to 1; None if there was a single draw.

    Raises
    ------
    ValueError
        As `coverage`, or if draws is below 1 or more than there are.

    Notes
    -----
    The sum over states of j/U [1 - C(n - j, m) / C(n - 1, m)], without bias. Sources as `coverage`.
    """
    return Rarefaction(spectrum, samples).coverage(draws)


def coverage_interval(
    spectrum: Spectrum,
    level: float = 0.95,
    samples: int | None = None,
    standard_error: float | None = None,
) -> tuple[float, float] | None:
    """Return a confidence interval of Turing's coverage.

    Parameters
    ----------
    spectrum
        What was counted.
    level
        Nominal confidence, between 0 and 1.
    samples
        How many samples there were, to count by samples; None to count by rows, which takes these
        for independent draws.
    standard_error
        Of the share of draws in states seen once, from groups of samples (`jackknife`): by samples
        it tells for how many independent draws the incidences of a sample count. Unless given, or
        where nothing scatters, for one.

    Returns
    -------
    tuple of float or None
        Lower and upper limit, from 0 to 1; None for a single draw.

    Raises
    ------
    ValueError
        If the spectrum has no rows, a state occurs in more samples than there were, or level is
        not between 0 and 1.

    Notes
    -----
    With u = f1/U of U draws seen once, r = 2 f2 / (U - f1) of the others seen twice (1 if there are
    no others) and N independent draws, the limits of 1 - coverage are the x with

        (x - u)**2 = z**2 (1 - x) (x + r) / N.

    The right side is Esty's (1983, Annals of Statistics 11) variance at x rather than at u, as in
    Wilson's interval of a share, with a correction for u being a whole number of draws: so that
    where all states were seen once, or none was, there is still something to be told.
    """
    check_level(level)
    observed = Draws.of(spectrum, samples)
    if observed.number == 1:
        return None
    once = observed.once / observed.total
    twice = 2 * observed.twice / (observed.total - observed.once) if once < 1 else 1.0
    draws = float(observed.number)
    if samples is not None and standard_error and once + twice > 0 and once < 1:
        draws = min(observed.total, (1 - once) * (once + twice) / standard_error**2)
    # Half of a draw, or of two where draws come in pairs.
    step = (1 + twice) / (2 * draws)
    least, most = (
        _unseen_limit(min(max(once + side * step, 0.0), 1.0), twice, draws, level, side)
        for side in (-1, 1)
    )
    return max(0.0, 1 - most), min(1.0, 1 - least)


def _unseen_limit(once: float, twice: float, draws: float, level: float, side: int) -> float:
    """Return the smaller (side -1) or larger (1) x of x**2 (1 + c) - 2 x b + d = 0."""
    reach = NormalDist().inv_cdf((1 + level) / 2) ** 2 / draws
    middle, product = once + reach * (1 - twice) / 2, once**2 - reach * twice
    root = math.sqrt(max(0.0, middle**2 - (1 + reach) * product))
    return (middle + side * root) / (1 + reach)
