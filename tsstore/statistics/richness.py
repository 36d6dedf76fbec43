"""How many states there are, those never seen included, and how much of the next draw was seen.

Good's, Chao's and Hurlbert's formulas are about draws that do not depend on each other. Rows are
such draws where each sample has one position. Rows of one sample repeat each other, so a layer with
several positions is counted by samples: a draw is a sample then, and a state was drawn as often as
its incidence says. Ecologists call the two abundance and incidence data; the formulas are the same
but for the total of the counts.

*Richness* is a lower bound on the number of states, from the rarest ones. *Coverage* is how much of
the next draw, if there were one, would be in states seen already. Good and Turing's estimate of the
rest is the share of the draws in states seen once; Chao and Jost (2012) use the states seen twice
as well.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, Self

import numpy as np

from tsstore.statistics.special import FloatArray, Unseen, check_level, decay_of_unseen
from tsstore.statistics.spectrum import IntArray, Spectrum


@dataclass(frozen=True, eq=False)
class Draws:
    """How many distinct states were seen in how many draws: rows, or samples.

    Attributes
    ----------
    counts, states
        int64 (entries,): in how many draws, ascending, how many states were seen.
    number
        How many draws there were.
    total
        Sum of the counts over all states: the rows; by samples, the incidences, which are more than
        the samples where a sample has several states.
    """

    counts: IntArray
    states: IntArray
    number: int
    total: int

    @classmethod
    def of(cls, spectrum: Spectrum, samples: int | None = None) -> Self:
        """Take a spectrum as draws: of so many samples, or, where that is None, of its rows.

        ValueError if it has no rows, or a state occurs in more samples than there were.
        """
        if spectrum.rows == 0:
            raise ValueError("draws need at least one row: there are no rows")
        if samples is None:
            counts, states = spectrum.multiplicities()
            return cls(counts, states, spectrum.rows, spectrum.rows)
        counts, states = spectrum.incidences()
        if counts[-1] > samples:
            raise ValueError(
                f"a state was seen in {counts[-1]} samples, so there were at least as many: "
                f"found samples={samples}"
            )
        return cls(counts, states, operator.index(samples), int(counts @ states))

    @property
    def distinct(self) -> int:
        """Number of distinct states."""
        return int(self.states.sum())

    @property
    def once(self) -> int:
        """f1, the number of distinct states that were seen in one draw."""
        return self._seen_in(1)

    @property
    def twice(self) -> int:
        """f2, the number of distinct states that were seen in two draws."""
        return self._seen_in(2)

    @property
    def weights(self) -> FloatArray:
        """Counts times states: float64 of shape (entries,), adding up to the total."""
        return self.counts.astype(np.float64) * self.states

    @property
    def coverage(self) -> float:
        """Share of the next draw, if there were one, in states seen (Chao and Jost 2012)."""
        found_again = 0.0 if self.unseen is None else self.unseen.share
        return ((self.total - self.once) + self.once * found_again) / self.total

    @property
    def unseen(self) -> Unseen | None:
        """What the states seen once and twice say of the unseen ones."""
        return decay_of_unseen(self.number, self.once, self.twice)

    def _seen_in(self, draws: int) -> int:
        return int(self.states[self.counts == draws].sum())


def draws_from_one_to(number: int, draws: int) -> int:
    """Check a number of draws that something is asked for: ValueError unless there are so many.

    TypeError if it is not a whole number.
    """
    if not 1 <= (kept := operator.index(draws)) <= number:
        raise ValueError(f"draws must be from 1 to the {number} that there are: found {draws}")
    return kept


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
    """Estimate how many states there are from those seen once and twice: a lower bound on average.

    By samples it is Chao2, by rows (None) Chao1; the limit is that of states that there can be. It
    is near the truth only where the unseen states are about as frequent as those seen once.
    ValueError if the spectrum has no rows, a state occurs in more samples than there were, more
    states were seen than there can be, or the level is not between 0 and 1.

    S + (n - 1)/n f1**2 / (2 f2), and S + (n - 1)/n f1 (f1 - 1) / 2 where f2 = 0 (Chao 1984, 1987;
    Chao and Chiu 2016). The interval is log-normal in the unseen states (Chao 1987). If no state
    was seen twice it is what f2 as a Poisson number leaves open (Garwood 1936), which has no upper
    end. Where no unseen states are estimated it begins at the number seen; error and upper limit
    are of Poisson frequencies. scikit-bio's Chao1 leaves out the factor (n - 1)/n.
    """
    check_level(level)
    observed = Draws.of(spectrum, samples)
    limit = math.inf if states_limit is None else float(states_limit)
    if not observed.distinct <= limit:
        raise ValueError(
            f"there can be no more than {limit:.0f} states: found {observed.distinct} distinct ones"
        )
    found = _as_seen(observed, level) if observed.unseen is None else _with_unseen(observed, level)
    ends = (min(end, limit) for end in (found.lower, found.upper))
    return Richness(min(found.estimate, limit), found.standard_error, *ends)


def states_of(neurons: int) -> float:
    """Return how many states neurons can have; infinity where a float cannot be so large."""
    return 2.0**neurons if neurons < 1024 else math.inf


def unseen_states(observed: Draws) -> float:
    """Return f0, Chao's estimate of how many states were not seen.

    (n - 1)/n f1**2 / (2 f2), and likewise for f2 = 0, is f1/n (1 - A)/A with the A of `special`.
    """
    tail = observed.unseen
    return 0.0 if tail is None else observed.once / observed.number * tail.rest / tail.share


def _with_unseen(observed: Draws, level: float) -> Richness:
    seen, missing = observed.distinct, unseen_states(observed)
    if observed.twice == 0:
        return _without_twice(observed, level)
    shrink = (observed.number - 1) / observed.number
    ratio = observed.once / observed.twice
    terms = shrink * ratio**2 / 2 + shrink**2 * ratio**3 + shrink**2 * ratio**4 / 4
    variance = observed.twice * terms
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


def coverage(spectrum: Spectrum, samples: int | None = None) -> float | None:
    """Return the estimated share of all rows that the states seen make up; None for a single draw.

    ((U - f1) + f1 A) / U, U being the total of the counts and A as in `special` (Chao and Jost
    2012, Ecology 93; by samples Chao et al. 2014, Ecological Monographs 84). Where that A is not
    defined this is Turing's (U - f1) / U: 1 if no state was seen once, and (U - 1) / U if one was
    and none twice, where iNEXT says 1. ValueError as `Draws.of`.
    """
    observed = Draws.of(spectrum, samples)
    return None if observed.number == 1 else observed.coverage


def coverage_interval(
    spectrum: Spectrum,
    level: float = 0.95,
    samples: int | None = None,
    standard_error: float | None = None,
) -> tuple[float, float] | None:
    """Return a confidence interval of Turing's coverage; None for a single draw.

    The standard error is that of the share of draws in states seen once, from groups of samples
    (`jackknife`): by samples it tells for how many independent draws the incidences of a sample
    count. Without, or where nothing scatters, for one. ValueError as `Draws.of`, or if the level is
    not between 0 and 1.

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
    reach = _quantile(level) ** 2 / draws
    middle, product = once + reach * (1 - twice) / 2, once**2 - reach * twice
    root = math.sqrt(max(0.0, middle**2 - (1 + reach) * product))
    return (middle + side * root) / (1 + reach)
