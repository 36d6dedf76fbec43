"""Confidence intervals for a network's efficiency and aIQ, and for the difference of two numbers.

The same groups of samples are left out in all layers, and in the accuracy, and the number is
computed anew from what is left: what layers have in common, because they saw the same samples, is
then in its standard error. How far off the number may be for other reasons follows from the layers:
it is computed from the lowest and from the highest entropy that each layer may have on average, and
from those that it may have if the samples, which are the same in all layers, missed as much as they
can have missed (`intervals`).

*A paired difference.* Groups that hold the same samples in both analyses are left out of both at
once. How the difference changes from group to group is its scatter, whatever the two have in
common: networks that saw the same inputs err together, and their difference scatters less than
each. Samples that only one of the two saw do no harm, as long as equal samples are in equal groups.

*An independent one.* Variances add up, and Student's t has the degrees of freedom of Welch (1947,
Biometrika 34) and Satterthwaite (1946, Biometrics Bulletin 2).

Bias, and what the samples may have missed (`intervals`), are not taken to cancel: the difference is
at its lowest where the first number is at its lowest and the second one at its highest. Only if
asked to, the two numbers are taken to be off alike: both at their lowest, or both at their highest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tsstore.statistics.efficiency import Answers, accuracy_limits, aIQ, network_efficiency
from tsstore.statistics.intervals import Interval, Jackknifed, Reach
from tsstore.statistics.jackknife import standard_error, student_quantile
from tsstore.statistics.special import FloatArray


def network_interval(
    entropies: Sequence[Jackknifed],
    neurons: Sequence[int],
    *,
    level: float = 0.95,
    unseen_like_rare: bool = False,
) -> Interval:
    """Return a confidence interval for the network's efficiency, the geometric mean of the layers'.

    Entropies, each layer's (`intervals.jackknifed_entropy`), have the same groups; ValueError if
    not, if there are no layers, or not as many numbers of neurons, or the level is not between 0
    and 1. What may be assumed of unseen states, `Jackknifed.interval` says.
    """
    _check_layers(entropies, neurons)
    network, reach = propagated(
        entropies, neurons, lambda bits: efficiency_of(bits, neurons), level, unseen_like_rare
    )
    return network.within(reach, level, 1.0)


def aiq_interval(
    entropies: Sequence[Jackknifed],
    neurons: Sequence[int],
    accuracy: float | Answers,
    *,
    weight: float = 2,
    clusters: int | None = None,
    level: float = 0.95,
    unseen_like_rare: bool = False,
) -> Interval:
    """Return a confidence interval for the aIQ, from 0 to 1; all as `network_interval`.

    An accuracy is of the answers of each group, or a share that is taken to be exact; ValueError as
    `efficiency.aIQ`, too, or if a single group has all answers.

    Few wrong answers scatter unlike Student's t, and none do not scatter at all by groups: what the
    accuracy makes uncertain is the quotient at its limits (`efficiency.accuracy_limits`). These
    deviations are joined with the margin of the efficiency, and with how the two vary together from
    group to group, as Zou and Donner do (2008, Statistics in Medicine 27).
    """
    _check_layers(entropies, neurons)
    share = accuracy.share if isinstance(accuracy, Answers) else accuracy

    def quotient(bits: Sequence[float], accuracy: float) -> float:
        return aIQ(min(1.0, efficiency_of(bits, neurons)), accuracy, weight)

    alone, reach = propagated(
        entropies, neurons, lambda bits: quotient(bits, share), level, unseen_like_rare
    )
    if not isinstance(accuracy, Answers):
        return alone.within(reach, level, 1.0)
    bits = [entropy.estimate for entropy in entropies]
    shares = accuracy.shares_without().tolist()
    by_accuracy = np.array([quotient(bits, without) for without in shares])
    margin, together = alone.margin(level), _correlation(alone.without, by_accuracy)

    def to_side(limit: float, missed: float) -> float:
        off = abs(quotient(bits, limit) - alone.estimate)
        return math.sqrt(margin**2 + missed**2 + off**2 + 2 * together * margin * off)

    limits = accuracy_limits(accuracy, level, clusters)
    lower = reach.lowest - to_side(limits[0], reach.lowest - reach.least)
    upper = reach.highest + to_side(limits[1], reach.most - reach.highest)
    bits_without = np.stack([entropy.without for entropy in entropies], axis=1).tolist()
    without = np.array([quotient(*both) for both in zip(bits_without, shares, strict=True)])
    error = replace(alone, without=without).standard_error
    return Interval(alone.estimate, max(0.0, lower), min(1.0, upper), error, level)


def propagated(
    entropies: Sequence[Jackknifed],
    neurons: Sequence[int],
    statistic: Callable[[Sequence[float]], float],
    level: float,
    unseen_like_rare: bool = False,
) -> tuple[Jackknifed, Reach]:
    """Return what a rising statistic of all layers' bits comes to, and how far off it may be."""
    reaches = (entropy.reach(level, unseen_like_rare=unseen_like_rare) for entropy in entropies)
    capped = [
        [min(bits, most) for bits in reach] for reach, most in zip(reaches, neurons, strict=True)
    ]
    reach = Reach(*(statistic(bits) for bits in zip(*capped, strict=True)))
    table = np.stack([entropy.without for entropy in entropies], axis=1)
    jackknifed = Jackknifed(
        statistic([entropy.estimate for entropy in entropies]),
        reach.lowest,
        reach.highest,
        without=np.array([statistic(bits) for bits in table.tolist()]),
        samples=np.max([entropy.samples for entropy in entropies], axis=0),
    )
    return jackknifed, reach


def efficiency_of(bits: Sequence[float], neurons: Sequence[int]) -> float:
    """Return the efficiency of a network whose layers have so many bits, and neurons."""
    efficiencies = [max(0.0, b) / n for b, n in zip(bits, neurons, strict=True)]
    return network_efficiency(efficiencies) or 0.0


def _correlation(one: FloatArray, other: FloatArray) -> float:
    """Return the correlation of two numbers over the groups left out; 0 if one does not change."""
    deviations = one - one.mean(), other - other.mean()
    sizes = [float(np.linalg.norm(part)) for part in deviations]
    return float(deviations[0] @ deviations[1]) / math.prod(sizes) if min(sizes) > 0 else 0.0


def _check_layers(entropies: Sequence[Jackknifed], neurons: Sequence[int]) -> None:
    groups = {len(entropy.without) for entropy in entropies}
    if len(entropies) != len(neurons) or len(groups) != 1:
        raise ValueError(
            f"a network needs layers with the same groups, and the neurons of each: found "
            f"{len(entropies)} layers, {len(neurons)} numbers of neurons, {sorted(groups)} groups"
        )
    if min(neurons) < 1:
        raise ValueError(f"a layer has at least one neuron: found {min(neurons)}")


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

    Paired: equal samples are in equal groups of both; else those of one are taken to be independent
    of those of the other. Alike: the two are off alike, at their lowest or at their highest at
    once. ValueError if the level is not between 0 and 1, fewer than two groups hold samples, or
    pairs are to be made of different numbers of groups.
    """
    one, other = first[0], second[0]
    error, degrees = _paired(one, other) if paired else _independent(one, other)
    reach = _reach_alike(*first, *second) if alike else _reach(first[1], second[1])
    lower, upper = reach.ends(student_quantile(level, degrees) * error)
    return Interval(one.estimate - other.estimate, lower, upper, error, level)


def _reach(first: Reach, second: Reach) -> Reach:
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
