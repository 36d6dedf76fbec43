"""The difference of two estimates, with an interval: over the same samples or independent ones.

*Paired.* Groups that hold the same samples in both analyses are left out of both at once. How the
difference changes from group to group is its scatter, whatever the two have in common: networks
that saw the same inputs err together, and their difference scatters less than each. Samples that
only one of the two saw do no harm, as long as equal samples are in equal groups.

*Independent.* Variances add up, and Student's t has the degrees of freedom of Welch (1947,
Biometrika 34) and Satterthwaite (1946, Biometrics Bulletin 2).

Bias, and what the samples may have missed (`intervals`), are not taken to cancel: the difference is
at its lowest where the first number is at its lowest and the second one at its highest. Only if
asked to, the two numbers are taken to be off alike: both at their lowest, or both at their highest.
"""

from __future__ import annotations

import math

import numpy as np

from tsstore.statistics.intervals import Interval, Jackknifed, Reach
from tsstore.statistics.jackknife import standard_error, student_quantile

Estimated = tuple[Jackknifed, Reach]
"""A number with those without each group, and how far off it may be but for scatter."""


def difference_interval(
    first: Estimated,
    second: Estimated,
    *,
    paired: bool,
    alike: bool = False,
    level: float = 0.95,
) -> Interval:
    """Return a confidence interval for the first number less the second one.

    Parameters
    ----------
    first, second
        As `network_intervals.propagated` gives them.
    paired
        Whether equal samples are in equal groups of both; else the samples of one are taken to be
        independent of those of the other.
    alike
        Whether the two are off alike on average: at their lowest or at their highest at once.
    level
        Nominal confidence, between 0 and 1.

    Raises
    ------
    ValueError
        If level is not between 0 and 1, fewer than two groups hold samples, or pairs are to be made
        of different numbers of groups.
    """
    one, other = first[0], second[0]
    error, degrees = _paired(one, other) if paired else _independent(one, other)
    reach = (_reach_alike if alike else _reach)(*first, *second)
    lower, upper = reach.ends(student_quantile(level, degrees) * error)
    return Interval(one.estimate - other.estimate, lower, upper, error, level)


def _reach(one: Jackknifed, first: Reach, other: Jackknifed, second: Reach) -> Reach:
    return Reach(
        first.lowest - second.highest,
        first.highest - second.lowest,
        first.least - second.most,
        first.most - second.least,
    )


def _reach_alike(one: Jackknifed, first: Reach, other: Jackknifed, second: Reach) -> Reach:
    estimate = one.estimate - other.estimate
    ends = estimate, first.lowest - second.lowest, first.highest - second.highest
    lowest, highest = min(ends), max(ends)
    missed = first.least - first.lowest - second.most + second.highest
    more = first.most - first.highest - second.least + second.lowest
    return Reach(lowest, highest, lowest + missed, highest + more)


def _paired(one: Jackknifed, other: Jackknifed) -> tuple[float, float]:
    """Return standard error and degrees of freedom of what the groups change in the difference."""
    if len(one.without) != len(other.without):
        raise ValueError(
            f"pairs are made of the same groups: found {len(one.without)} and {len(other.without)}"
        )
    held = (one.samples > 0) | (other.samples > 0)
    error = standard_error((one.without - other.without)[held])
    return error, float(np.count_nonzero(held) - 1)


def _independent(one: Jackknifed, other: Jackknifed) -> tuple[float, float]:
    """Return standard error and degrees of freedom of Welch and Satterthwaite."""
    errors = one.standard_error, other.standard_error
    error = math.hypot(*errors)
    if error == 0:
        return 0.0, float(min(one.groups, other.groups) - 1)
    parts = zip(errors, (one.groups, other.groups), strict=True)
    return error, error**4 / math.fsum(part**4 / (groups - 1) for part, groups in parts)
