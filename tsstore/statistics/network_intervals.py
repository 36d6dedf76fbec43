"""Confidence intervals for a network's efficiency and aIQ.

The same groups of samples are left out in all layers, and in the accuracy, and the number is
computed anew from what is left: what layers have in common, because they saw the same samples, is
then in its standard error. How far off the number may be for other reasons follows from the layers:
it is computed from the lowest and from the highest entropy that each layer may have on average, and
from those that it may have if the samples, which are the same in all layers, missed as much as they
can have missed (`intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tsstore.statistics.accuracy import Answers, accuracy_limits
from tsstore.statistics.efficiency import aIQ, network_efficiency
from tsstore.statistics.intervals import Interval, Jackknifed, Reach
from tsstore.statistics.numerics import FloatArray


def network_interval(
    entropies: Sequence[Jackknifed],
    neurons: Sequence[int],
    *,
    level: float = 0.95,
    unseen_like_rare: bool = False,
) -> Interval:
    """Return a confidence interval for the network's efficiency.

    Parameters
    ----------
    entropies
        Each layer's entropy and what it is without each group of samples
        (`intervals.jackknifed_entropy`); the groups are the same in all layers.
    neurons
        Neurons of each layer.
    level
        Nominal confidence, between 0 and 1.
    unseen_like_rare
        Assume of all layers what `Jackknifed.interval` says.

    Returns
    -------
    Interval
        From 0 to 1; its estimate is the geometric mean of the layers' efficiencies.

    Raises
    ------
    ValueError
        If there are no layers, not as many numbers of neurons, or of groups in each layer, or level
        is not between 0 and 1.
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
    """Return a confidence interval for the artificial intelligence quotient.

    Parameters
    ----------
    entropies, neurons, level, unseen_like_rare
        As `network_interval`.
    accuracy
        The answers of each group, or the share of right answers if that is known from elsewhere:
        it is then taken to be exact.
    weight
        How many times the accuracy counts for each time that the efficiency does.
    clusters
        As `accuracy.accuracy_limits`.

    Returns
    -------
    Interval
        From 0 to 1.

    Raises
    ------
    ValueError
        As `network_interval` and `efficiency.aIQ`, or if a single group has all answers.

    Notes
    -----
    Few wrong answers scatter unlike Student's t, and none do not scatter at all by groups: what
    the accuracy makes uncertain is the quotient at its limits (`accuracy.accuracy_limits`). These
    deviations are joined with the margin of the efficiency, and with how the two vary together
    from group to group, as Zou and Donner do (2008, Statistics in Medicine 27).
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
