"""What states tell of samples: of the set that a sample is in, and how surprising a sample is.

*Information.* I(state; set) = H(state) - sum over sets of their share of the rows times H(state in
the set), in bits (Cover and Thomas 2006, 2.4); each entropy is the default estimate. Of too few
samples the entropies within the sets, which hold fewer of them, are too low by more than that of
all, so that the difference is too high: by how much, shuffled labels show, sets of the same sizes
by chance.

*Surprisal.* How little a sample's rows are expected, given all other samples.
With N rows, K of them in the state of a row, and k of these K in the row's own sample of r rows,
the other samples show the state with the frequency (K - k) / (N - r). They lack states, though: of
all rows, the share

    u = rows in states that one sample alone shows / N

is of states that no other sample shows: Good's (1953) estimate of the mass of unseen states, with a
sample left out at a time instead of a row. So, in bits,

    surprisal = -log2((1 - u) (K - k) / (N - r))        where another sample shows the state,
              = -log2(u / f0)                           where none does,

the mass u being shared out evenly among f0 states, which is how many Chao2 estimates to be unseen
(Chao 1987), one at least: as Chao, Hsieh, Chazdon, Colwell and Gotelli (2015) share it among
undetected species, but evenly. With the mass alone, -log2(u), a state that nobody has seen would
count as more likely than one that is seen often, wherever most states are new.

I. J. Good, "The population frequencies of species and the estimation of population parameters",
Biometrika 40, 1953. A. Chao, "Estimating the population size for capture-recapture data with
unequal catchability", Biometrics 43, 1987. A. Chao et al., "Unveiling the species-rank abundance
distribution by generalizing the Good-Turing sample coverage theory", Ecology 96, 2015.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tsstore.statistics.intervals import FEWEST_GROUPS, Interval, Jackknifed
from tsstore.statistics.jackknife import standard_error, student_quantile
from tsstore.statistics.richness import chao, states_of
from tsstore.statistics.special import FloatArray
from tsstore.statistics.spectrum import IntArray, Spectrum


class Known(NamedTuple):
    """An estimate of information, and those without each random group of samples; all in bits."""

    estimate: float
    without: FloatArray


def information(
    whole: Jackknifed, sets: Sequence[Jackknifed], rows: IntArray, rows_of_groups: IntArray
) -> Known:
    """Return the information between states and sets of samples.

    Parameters
    ----------
    whole, sets
        Entropies of the states of all samples, and of those of each set.
    rows
        int64 (sets,): rows of each.
    rows_of_groups
        int64 (sets, groups): how many of them are of each random group; no groups for no interval.
    """
    shares = rows / rows.sum()
    estimate = whole.estimate - float(shares @ np.array([own.estimate for own in sets]))
    if not len(whole.without) or any(len(own.without) != len(whole.without) for own in sets):
        return Known(estimate, np.zeros(0))
    left = rows[:, None] - rows_of_groups
    within = (left * np.stack([own.without for own in sets])).sum(axis=0) / left.sum(axis=0)
    return Known(estimate, (whole.without - within)[whole.samples > 0])


def information_interval(
    found: Known, shuffled: float, most: float, level: float = 0.95
) -> Interval | None:
    """Return an interval for the information; None if groups of samples do not tell the scatter.

    Its lower end allows for what shuffled labels show. Information is from 0 to the entropy of the
    sets, `most`.
    """
    groups = len(found.without)
    if groups < FEWEST_GROUPS:
        return None
    error = standard_error(found.without)
    margin = student_quantile(level, groups - 1) * error
    ends = found.estimate, found.estimate - margin - max(shuffled, 0.0), found.estimate + margin
    estimate, lower, upper = (min(max(end, 0.0), most) for end in ends)
    return Interval(estimate, lower, upper, error, level)


def set_entropy(rows: IntArray) -> float:
    """Return the entropy of which set a row is of, in bits, from the rows of each set."""
    shares = rows[rows > 0] / rows.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def unseen(spectrum: Spectrum, samples: int, neurons: int) -> tuple[float, float]:
    """Return u and f0: the mass of states that samples have not shown, and how many there are."""
    mass = spectrum.rows_in_single_samples / spectrum.rows
    states = chao(spectrum, samples, states_of(neurons)).estimate - spectrum.distinct
    return mass, max(states, 1.0)


def mean_surprisal(
    logs: FloatArray, new_rows: IntArray, rows: IntArray, mass: float, states: float
) -> FloatArray:
    """Return the mean surprisal of each sample's rows, in bits; NaN of one without rows.

    Parameters
    ----------
    logs
        float64 (samples,): the sum of log2(K - k) over the rows whose state another sample shows.
    new_rows, rows
        int64 (samples,): rows of states that no other sample shows, and all rows.
    mass, states
        As `unseen` returns them.
    """
    seen = rows - new_rows
    others = (rows.sum() - rows).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_seen = seen * (np.log2(others) - (math.log2(1 - mass) if mass < 1 else 0.0)) - logs
        of_new = new_rows * (math.log2(states) - math.log2(mass) if mass > 0 else 0.0)
        bits: FloatArray = (np.where(seen > 0, of_seen, 0.0) + of_new) / rows
    return bits
