"""Whether samples can be independent draws, by the numbers of samples in which states were seen.

Let a state be in one of m independent samples with probability P, and in q of all m of them. Over
all states, with theta = P / (1 - P), the expected number f_q of states that are in q samples is

    E f_q = C(m, q) g_q,    g_q = sum P**q (1 - P)**(m - q) = sum (1 - P)**m theta**q,

so that g_q are moments of a measure on theta, whatever the states, their number, their
probabilities, and however they occur together: a mixture of binomial distributions. By Cauchy and
Schwarz moments are log-convex, g_b**2 <= g_(b-1) g_(b+1), or

    (E f_b)**2 <= (1 + 1/b) (1 + 1/(m - b)) E f_(b-1) E f_(b+1),    0 < b < m.

For q << m, C(m, q) is about m**q / q!, and q! f_q is log-convex. States that are in every sample,
P = 1, add to f_m alone and say nothing. Copies break it: with each sample four times, f_4, f_8, ...
hold all states and what is between is empty.

*Clumps.* The f_q are sums of indicators. One position a sample makes these negatively correlated,
and f_q scatters at most like a Poisson variable. With several positions states come in clumps,
those of two similar samples for instance, which change together. How large clumps are is seen by
leaving groups of samples out: independent states leave an entry q of the spectrum each for itself,
which makes the number that stays in it scatter from group to group like a binomial variable; by as
many times as it scatters more, phi, states are taken to be fewer: f / phi events. phi is itself
estimated, from G groups, and is taken at its upper limit by chi-squared with G - 1 degrees of
freedom. An entry whose every state has samples in most groups shows no scatter: q is looked at up
to `LARGEST`.

*Neighbours.* The counts a, b, c of three that follow each other are Poisson variables whose means
are to be x, y, z with y**2 <= k x z, k the factor above. Where b is too large, the likelihood is
largest for y**2 = k x z with x + y / 2 = a + b / 2 and z + y / 2 = c + b / 2, a quadratic equation;
by how much it falls short of the largest one there is, a factor of
exp(-a ln(a / x) - b ln(b / y) - c ln(c / z)), bounds, about, how improbable so large a b is
(Chernoff). This also notices that a part of the
samples is copied where states are rare: many in two samples, hardly any in three.

*Gaps.* Of samples that are all copied c times, states are in c, 2 c, 3 c ... samples. The geometric
mean of neighbours is at most the arithmetic one; so of all states in c i - 1, c i and c i + 1
samples a share of at most w / (2 + w) is in c i, with w**2 = (1 + 1/c) (1 + 1/(m - c i)); for
c = 2, where neighbours are shared, w / (1 + w). More than that is improbable by the binomial
distribution.

*Multiples.* In narrow layers q is large, f_q is 0 or 1, and neighbours tell little. But the
number of samples that show a state of variance v = m P (1 - P) leaves each remainder by c with
almost equal probability: they differ by less than 2 exp(-2 pi**2 v / c**2) relatively (the
characteristic function of the binomial distribution at 2 pi / c). So of different values of q with
v >= c**2 / 2, about one in c is a multiple of c; copied c times, all are. Values are counted once,
however many states have them, since states that always occur together are one event. With one
position a sample all q add up to m, so that one value is no news; with several, each may still
determine another one (there, and not there), so that only every second one is taken for news.

The chance that independent samples are found fault with is at most `LEVEL`: all tests share it
(Bonferroni). It does not hold where samples of several positions repeat a few whole patterns: six
of them may all have come an even number of times, and were found fault with in up to 3 of 100
simulations. What copies a part of the samples, or copies few states, may go unseen.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special

from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.statistics.special import FloatArray
from tsstore.statistics.spectrum import IntArray, Spectrum

LEVEL = 2e-4
"""Chance that independent samples are taken for dependent ones, at most."""

LARGEST = 64
"""Largest number of samples whose states are compared with their neighbours, and largest number of
copies looked for."""

FEWEST_GROUPS = 16
"""With fewer groups it is not known how states clump."""

_TESTS = 3
_CLUMP_LEVEL = 0.01


def dependent_draws(
    spectrum: Spectrum,
    samples: int,
    changes: SpectrumDelta | None = None,
    pairs_within_samples: int = 0,
) -> str | None:
    """Say in a phrase what shows that samples are no independent draws; None if nothing does.

    Without changes neighbours are compared only where each sample has one row at most, that is, no
    pairs of rows are within samples. Samples of clusters are dependent, and break the rule with
    good reason: do not ask then.
    """
    one_row = pairs_within_samples == 0
    groups = 0 if changes is None else np.count_nonzero(changes.samples)
    found = None
    if one_row or groups >= FEWEST_GROUPS:
        seen = np.zeros(LARGEST + 2)
        incidence, states = spectrum.incidences()
        low = incidence <= LARGEST + 1
        seen[incidence[low]] = states[low]
        clumps = np.ones_like(seen) if one_row or changes is None else _clumps(seen, changes)
        largest = min(LARGEST, samples // 2)
        found = _gaps(seen, clumps, samples, largest) or _neighbours(seen, clumps, samples, largest)
    return found or _multiples(spectrum, samples, one_row)


def _neighbours(seen: FloatArray, clumps: FloatArray, samples: int, largest: int) -> str | None:
    """Say which number of samples has too many states for its neighbours."""
    middle = np.arange(2, largest + 1)
    if not len(middle):
        return None
    before, here, after = (seen[middle + step] / clumps[middle] for step in (-1, 0, 1))
    factor = convexity(middle, samples)
    left, right = before + here / 2, after + here / 2
    half = factor * (left + right) / 4
    square = 1 - factor / 4
    most = (np.sqrt(half**2 + square * factor * left * right) - half) / square
    pairs = ((before, left - most / 2), (here, most), (after, right - most / 2))
    short = sum(
        special.xlogy(count, np.divide(count, mean, out=np.ones_like(mean), where=mean > 0))
        for count, mean in pairs
    )
    improbable = np.where(here > most, np.exp(-short), 1.0)
    if improbable.min() >= LEVEL / _TESTS / LARGEST:
        return None
    return _too_many(seen, int(middle[improbable.argmin()]))


def _gaps(seen: FloatArray, clumps: FloatArray, samples: int, largest: int) -> str | None:
    """Say which number of samples, with its multiples, has all states of its neighbours."""
    if largest < 2:
        return None
    middle, starts = _multiples_of(largest)
    ratio = np.sqrt(np.maximum.reduceat(convexity(middle, samples), starts))
    # Each neighbour of two multiples of 2 counts by half for each.
    sides = np.where(middle[starts] == 2, 1, 2)
    here = np.add.reduceat(seen[middle] / clumps[middle], starts)
    around = np.add.reduceat((seen[middle - 1] + seen[middle + 1]) / clumps[middle], starts)
    share, some = ratio / (sides + ratio), here > 0
    improbable = np.ones(len(starts))
    improbable[some] = special.betainc(here[some], (around * sides / 2 + 1)[some], share[some])
    found = np.flatnonzero(improbable < LEVEL / _TESTS / LARGEST)
    if not len(found):
        return None
    multiples = np.arange(middle[starts[found[0]]], largest + 1, middle[starts[found[0]]])
    return _too_many(seen, int(multiples[seen[multiples].argmax()]))


@lru_cache
def _multiples_of(largest: int) -> tuple[IntArray, IntArray]:
    """Return the multiples of 2, of 3 and so on up to a number, and where those of each begin."""
    every = [np.arange(copies, largest + 1, copies) for copies in range(2, largest + 1)]
    return np.concatenate(every), np.cumsum([0, *map(len, every[:-1])])


def convexity(middle: IntArray, samples: int) -> FloatArray:
    """Return C(m, q)**2 / (C(m, q - 1) C(m, q + 1))."""
    return np.asarray((1 + 1 / middle) * (1 + 1 / (samples - middle)), np.float64)


def _too_many(seen: FloatArray, number: int) -> str:
    before, here, after = (int(seen[number + step]) for step in (-1, 0, 1))
    return (
        f"{here:,} states were seen in {number:,} samples each, but {before:,} in {number - 1:,} "
        f"and {after:,} in {number + 1:,}"
    )


def _clumps(seen: FloatArray, changes: SpectrumDelta) -> FloatArray:
    """Return how many states change together, at most, for each number of samples.

    Three that follow each other are taken for the largest of them, as they are compared.
    """
    held = np.flatnonzero(changes.samples)
    low = changes.incidence < len(seen)
    place = changes.group[low] * len(seen) + changes.incidence[low]
    moved = np.bincount(place, changes.states[low], minlength=changes.groups * len(seen))
    without = (seen + moved.reshape(changes.groups, -1))[held]
    stay = np.clip((1 - 1 / len(held)) ** np.arange(len(seen)), 0, 1)
    arrived = np.clip(without.mean(axis=0) - seen * stay, 0, None)
    alone = seen * stay * (1 - stay) + arrived
    freedom = len(held) - 1
    scatter = without.var(axis=0, ddof=1) * freedom / special.chdtri(freedom, 1 - _CLUMP_LEVEL)
    clumps = np.divide(scatter, alone, out=np.ones_like(seen), where=alone > 0)
    # The most of each and its neighbours; scipy.ndimage would take longer to load than all of this.
    padded = np.pad(np.maximum(clumps, 1), 1, constant_values=1)
    return np.asarray(np.maximum.reduce([padded[:-2], padded[1:-1], padded[2:]]), np.float64)


def _multiples(spectrum: Spectrum, samples: int, one_row: bool) -> str | None:
    """Say of which number too many incidences are multiples."""
    values = spectrum.incidences()[0]
    variance = values * (samples - values) / max(samples, 1)
    found = []
    for copies in range(2, LARGEST + 1):
        wide = values[variance >= copies**2 / 2]
        multiples = int(np.count_nonzero(wide % copies == 0))
        news, hits = (len(wide) - 1, multiples - 1) if one_row else (len(wide) // 2, multiples // 2)
        if hits > 0:
            improbable = float(special.bdtrc(hits - 1, news, 1 / copies))
            found.append((improbable, copies, multiples, len(wide)))
    improbable, copies, multiples, wide_values = min(found, default=(1.0, 0, 0, 0))
    if improbable >= LEVEL / _TESTS / LARGEST:
        return None
    return (
        f"of the {wide_values:,} different numbers of samples that show a state, {multiples:,} are "
        f"multiples of {copies}"
    )
