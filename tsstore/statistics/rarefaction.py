"""What fewer draws would have shown, and more would show: richness and diversity at a size.

Numbers of states and entropies grow with the draws, so layers, groups and steps are compared at
the same number of them. Fewer draws are rarefaction: the mean over all ways to keep m of the n
draws, without bias. More are extrapolation, a guess from the states seen once and twice that
should not be trusted far beyond 2 n.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tsstore.statistics.draws import Draws, draws_at_least_one
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.hypergeometric import log_avoidance, taken_marked
from tsstore.statistics.numerics import (
    FloatArray,
    digamma_correction,
    jackknife_correction,
    log_ratio,
)
from tsstore.statistics.richness import unseen_states
from tsstore.statistics.spectrum import Spectrum, exact_total
from tsstore.statistics.unseen import tail_sum

ENTRIES_AT_ONCE = 256
"""So many entries of a spectrum are rarefied at once: their arrays fit the processor's cache."""


def richness_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float:
    """Return how many distinct states fewer or more draws would show.

    Parameters
    ----------
    spectrum
        What was counted.
    draws
        m, at least 1: rows, or samples if samples is given.
    samples
        How many samples there were, to count by samples; None to count by rows.

    Raises
    ------
    ValueError
        If the spectrum has no rows, a state occurs in more samples than there were, or draws is
        below 1.

    Notes
    -----
    Rarefied: the sum over states of 1 - C(n - j, m) / C(n, m) (Hurlbert 1971). Extrapolated:
    S + f0 [1 - (1 - A)**(m - n)], f0 being Chao's estimate of the unseen states (Colwell et
    al. 2012, Journal of Plant Ecology 5; the same base as f1 / (n f0 + f1) there).
    """
    observed, m = Draws.of(spectrum, samples), draws_at_least_one(draws)
    if m <= observed.number:
        avoided = log_avoidance(observed.counts, m, observed.number)
        return math.fsum(observed.states * -np.expm1(avoided))
    tail = observed.unseen
    decay = 0.0 if tail is None else tail.decay
    found = -math.expm1(-decay * (m - observed.number))
    return observed.distinct + unseen_states(observed) * found


def entropy_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float:
    """Return the plug-in entropy that fewer or more draws would give, in bits.

    Parameters
    ----------
    spectrum
        What was counted.
    draws
        m, at least 1: rows, or samples if samples is given.
    samples
        How many samples there were, to count by samples; None to count by rows. By samples the
        entropy is that of a state's share of all incidences, which is not the entropy of
        the rows unless each sample has one position.

    Returns
    -------
    float
        Bits. Its limit for many draws is the estimate of Chao, Wang and Jost (2013).

    Raises
    ------
    ValueError
        As `richness_at`.

    Notes
    -----
    Chao et al. 2014, Ecological Monographs 84, tables 1 and 2. Rarefied: the mean of
    -sum x/u ln(x/u) over hypergeometric counts x, u = m U/n being the mean of their total.
    Extrapolated: the exponential D of the entropy as iNEXT does since version 3.0,

        D(m) = D(n) + [D(inf) - D(n)] [1 - (1 - b)**(m - n)],
        b = [D(n) - D(n - 1)] / [D(inf) - D(n - 1)].
    """
    observed, m = Draws.of(spectrum, samples), draws_at_least_one(draws)
    if m < observed.number:
        return _rarefied_nats(observed, m) / math.log(2)
    shares = Spectrum.from_arrays(observed.counts, observed.counts, observed.states)
    return plug_in(shares) + _gain_nats(observed, m - observed.number) / math.log(2)


def hill2_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float | None:
    """Return the Hill number of order 2 that fewer or more draws would give.

    Parameters
    ----------
    spectrum
        What was counted.
    draws
        m, at least 1: rows, or samples if samples is given.
    samples
        As `entropy_at`.

    Returns
    -------
    float or None
        So many equally frequent states would agree as often as those drawn do; its logarithm to
        base 2 is a collision entropy in bits. None for more draws than one if there was only one.

    Raises
    ------
    ValueError
        As `richness_at`.

    Notes
    -----
    1 / [n/(m U) + (1 - 1/m) n sum j (j - 1) / ((n - 1) U**2)], by rows without bias in the
    denominator for any m (Chao et al. 2014, Ecological Monographs 84, tables 1 and 2).
    """
    observed, m = Draws.of(spectrum, samples), draws_at_least_one(draws)
    n, total, j = observed.number, observed.total, observed.counts
    if m == 1:
        return total / n
    if n == 1:
        return None
    agreement = n * (exact_total(j, j, observed.states) - total) / ((n - 1) * total**2)
    return 1 / (n / (m * total) + (1 - 1 / m) * agreement)


def _rarefied_nats(observed: Draws, draws: int) -> float:
    size = draws * observed.total / observed.number
    means = []
    for first in range(0, observed.counts.size, ENTRIES_AT_ONCE):
        part = slice(first, first + ENTRIES_AT_ONCE)
        drawn, weights = taken_marked(observed.counts[part], draws, observed.number)
        # A state that was not drawn adds nothing, but its logarithm is infinite.
        logs = log_ratio(size, np.maximum(drawn, 1).astype(np.float64))
        means.extend(observed.states[part] * (weights * drawn * logs).sum(axis=1))
    return math.fsum(means) / size


def _gain_nats(observed: Draws, more: int) -> float:
    """Return the entropy at n + more draws, less that at n.

    With p = j/U, D(inf)/D(n) is the exponential of the sum of p times the correction of ln j by
    Zhang, less that of ln n, and of f1/U times the unseen tail. The entropy at n - 1 draws is that
    at n less the sum of p times the jackknife's correction, less that of n, over n - 1. None of
    the large terms is left.
    """
    to_limit = _mean_excess(observed, digamma_correction)
    to_limit += (
        observed.once / observed.total * tail_sum(observed.number, observed.once, observed.twice)
    )
    if more == 0 or to_limit <= 0:
        return 0.0
    from_one_less = _mean_excess(observed, jackknife_correction) / (observed.number - 1)
    base = -math.expm1(-from_one_less)
    reached = -math.expm1(more * math.log1p(-base / (math.expm1(to_limit) + base)))
    return math.log1p(math.expm1(to_limit) * reached)


def _mean_excess(observed: Draws, correction: Callable[[npt.ArrayLike], FloatArray]) -> float:
    """Return the mean of a correction of ln j, less that of ln n, weighing states by p = j/U."""
    excess = correction(observed.counts) - correction(observed.number)
    return math.fsum(observed.weights * excess) / observed.total
