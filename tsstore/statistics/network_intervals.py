"""Confidence intervals for a network's efficiency and aIQ.

The same groups of samples are left out in all layers, and in the accuracy, and the number is
computed anew from what is left: what layers have in common, because they saw the same samples, is
then in its standard error. How far off the number may be on average follows from the layers: it is
computed from the lowest and from the highest entropy that each layer is allowed (`intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tsstore.statistics.accuracy import Answers, accuracy_limits
from tsstore.statistics.efficiency import aIQ, network_efficiency
from tsstore.statistics.intervals import Interval, Jackknifed
from tsstore.statistics.numerics import FloatArray


def network_interval(
    entropies: Sequence[Jackknifed], neurons: Sequence[int], *, level: float = 0.95
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
    network = _jackknifed(entropies, lambda bits, _: _efficiency(bits, neurons))
    return network.interval(level, 1.0)


def aiq_interval(
    entropies: Sequence[Jackknifed],
    neurons: Sequence[int],
    accuracy: float | Answers,
    *,
    weight: float = 2,
    clusters: int | None = None,
    level: float = 0.95,
) -> Interval:
    """Return a confidence interval for the artificial intelligence quotient.

    Parameters
    ----------
    entropies, neurons, level
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
        return aIQ(min(1.0, _efficiency(bits, neurons)), accuracy, weight)

    alone = _jackknifed(entropies, lambda bits, _: quotient(bits, share))
    known = alone.interval(level, 1.0)
    if not isinstance(accuracy, Answers):
        return known
    bits = [entropy.estimate for entropy in entropies]
    limits = [quotient(bits, limit) for limit in accuracy_limits(accuracy, level, clusters)]
    shares = accuracy.shares_without().tolist()
    by_accuracy = np.array([quotient(bits, without) for without in shares])
    together = _correlation(alone.without, by_accuracy)
    margin = alone.margin(level)
    down, up = (
        max(0.0, end - margin) + math.sqrt(margin**2 + reach**2 + 2 * together * margin * reach)
        for end, reach in (
            (known.estimate - known.lower, known.estimate - limits[0]),
            (known.upper - known.estimate, limits[1] - known.estimate),
        )
    )
    bits_without = np.stack([entropy.without for entropy in entropies], axis=1).tolist()
    without = np.array([quotient(*both) for both in zip(bits_without, shares, strict=True)])
    return Interval(
        known.estimate,
        max(0.0, known.estimate - down),
        min(1.0, known.estimate + up),
        replace(alone, without=without).standard_error,
        level,
    )


def _jackknifed(
    entropies: Sequence[Jackknifed], statistic: Callable[[Sequence[float], int | None], float]
) -> Jackknifed:
    """Return what a statistic of all layers' bits, and of the group left out, comes to."""
    table = np.stack([entropy.without for entropy in entropies], axis=1)
    without = [statistic(bits, group) for group, bits in enumerate(table.tolist())]
    return Jackknifed(
        statistic([entropy.estimate for entropy in entropies], None),
        lowest=statistic([entropy.lowest for entropy in entropies], None),
        highest=statistic([entropy.highest for entropy in entropies], None),
        without=np.array(without, dtype=np.float64),
        samples=np.max([entropy.samples for entropy in entropies], axis=0),
    )


def _efficiency(bits: Sequence[float], neurons: Sequence[int]) -> float:
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
