"""How many states a layer has, those never seen included: a lower bound from the rarest ones."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from tsstore.statistics.draws import Draws
from tsstore.statistics.numerics import check_level
from tsstore.statistics.spectrum import Spectrum


class Richness(NamedTuple):
    """An estimated number of distinct states.

    Attributes
    ----------
    estimate
        Seen and unseen states; at least the former.
    standard_error
        Of the estimate, before any limit was put on it; infinite if no state was seen twice, and
        some once.
    lower, upper
        Confidence limits about the estimate; the lower one is at least the number of states seen.
    """

    estimate: float
    standard_error: float
    lower: float
    upper: float


def chao(
    spectrum: Spectrum,
    samples: int | None = None,
    states_limit: float | None = None,
    level: float = 0.95,
) -> Richness:
    """Estimate how many states there are from those seen once and twice.

    Parameters
    ----------
    spectrum
        What was counted.
    samples
        How many samples there were, to count by samples (Chao2); None to count by rows (Chao1).
    states_limit
        2**neurons, the states that there can be at most; None for no limit.
    level
        Nominal confidence of the limits, between 0 and 1.

    Returns
    -------
    Richness
        A lower bound on average, whatever the distribution; near the truth only where the
        unseen states are about as frequent as those seen once.

    Raises
    ------
    ValueError
        If the spectrum has no rows, a state occurs in more samples than there were, more states
        were seen than there can be, or level is not between 0 and 1.

    Notes
    -----
    S + (n - 1)/n f1**2 / (2 f2), and S + (n - 1)/n f1 (f1 - 1) / 2 where f2 = 0 (Chao 1984, 1987;
    Chao and Chiu 2016). The interval is log-normal in the unseen states (Chao 1987). If no state
    was seen twice it is what f2 as a Poisson number leaves open (Garwood 1936), which has no upper
    end. Where no unseen states are estimated it begins at the number seen; error and upper limit
    are of Poisson frequencies.
    scikit-bio's Chao1 leaves out the factor (n - 1)/n.
    """
    check_level(level)
    observed = Draws.of(spectrum, samples)
    limit = math.inf if states_limit is None else float(states_limit)
    if not observed.distinct <= limit:
        raise ValueError(
            f"there can be no more than {limit:.0f} states: found {observed.distinct} distinct ones"
        )
    found = _as_seen(observed, level) if observed.unseen is None else _with_unseen(observed, level)
    return Richness(
        estimate=min(found.estimate, limit),
        standard_error=found.standard_error,
        lower=min(found.lower, limit),
        upper=min(found.upper, limit),
    )


def unseen_states(observed: Draws) -> float:
    """Return f0, Chao's estimate of how many states were not seen.

    Notes
    -----
    (n - 1)/n f1**2 / (2 f2), and likewise for f2 = 0, is f1/n (1 - A)/A with the A of
    `tsstore.statistics.unseen`.
    """
    tail = observed.unseen
    return 0.0 if tail is None else observed.once / observed.number * tail.rest / tail.share


def _with_unseen(observed: Draws, level: float) -> Richness:
    seen, missing = observed.distinct, unseen_states(observed)
    if observed.twice == 0:
        return _without_twice(observed, level)
    variance = _variance(observed)
    factor = math.exp(_quantile(level) * math.sqrt(math.log1p(variance / missing**2)))
    lower, upper = seen + missing / factor, seen + missing * factor
    return Richness(seen + missing, math.sqrt(variance), lower, upper)


def _without_twice(observed: Draws, level: float) -> Richness:
    """No state was seen twice, so that on average f2 is anything from 0 to a Poisson limit."""
    from scipy.special import gammaincinv

    missing = unseen_states(observed)
    most = float(gammaincinv(1, (1 + level) / 2))
    at_least = min(missing, (observed.number - 1) / observed.number * observed.once**2 / (2 * most))
    seen = observed.distinct
    return Richness(seen + missing, math.inf, seen + at_least, math.inf)


def _variance(observed: Draws) -> float:
    shrink = (observed.number - 1) / observed.number
    ratio = observed.once / observed.twice
    terms = shrink * ratio**2 / 2 + shrink**2 * ratio**3 + shrink**2 * ratio**4 / 4
    return observed.twice * terms


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _as_seen(observed: Draws, level: float) -> Richness:
    """Nothing speaks for unseen states: only the number of those seen varies."""
    seen = observed.distinct
    missed = np.exp(-observed.counts.astype(np.float64))
    share_missed = math.fsum(observed.states * missed) / seen
    variance = math.fsum(observed.states * missed * (1 - missed))
    variance -= math.fsum(observed.weights * missed) ** 2 / observed.number
    error = math.sqrt(max(0.0, variance))
    # A lower limit about the number that this share speaks for can be above the estimate.
    upper = (seen + _quantile(level) * error) / (1 - share_missed)
    return Richness(float(seen), error, float(seen), upper)
