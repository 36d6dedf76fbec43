"""Information between a row's state and the set its sample is in.

I(state; set) = H(state) - sum over sets of their share of the rows times H(state in the set), in
bits (Cover and Thomas 2006, 2.4); each entropy is the default estimate. Of too few samples the
entropies within the sets, which hold fewer of them, are too low by more than that of all, so that
the difference is too high: by how much, shuffled labels show, sets of the same sizes by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsstore.statistics.intervals import FEWEST_GROUPS, Interval, Jackknifed
from tsstore.statistics.jackknife import standard_error, student_quantile

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """An estimate of information, and those without each random group of samples; all in bits."""

    estimate: float
    without: _Floats


def information(
    whole: Jackknifed,
    sets: Sequence[Jackknifed],
    rows: npt.NDArray[np.int64],
    rows_of_groups: npt.NDArray[np.int64],
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


def set_entropy(rows: npt.NDArray[np.int64]) -> float:
    """Return the entropy of which set a row is of, in bits, from the rows of each set."""
    shares = rows[rows > 0] / rows.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0
