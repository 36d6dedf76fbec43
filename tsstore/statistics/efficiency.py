"""Efficiencies, entropy a neuron, of a layer and of a network; and weighed with its accuracy.

*Intervals of a network's.* The same groups of samples are left out in all layers, and in the
accuracy, and the number is computed anew from what is left: what layers have in common, because
they saw the same samples, is then in its standard error. How far off the number may be for other
reasons follows from the layers: it is computed from the lowest and from the highest entropy that
each layer may have on average, and from those that it may have if the samples, which are the same
in all layers, missed as much as they can have missed (`intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, overload

import numpy as np

from tsstore.statistics.intervals import Interval, Jackknifed, Reach
from tsstore.statistics.rates import Answers, accuracy_limits
from tsstore.statistics.special import FloatArray

ROUNDING: Final = 1e-5
"""A share may be so much above 1: averages of float32 are."""


def efficiency(entropy_bits: float, neurons: int) -> float:
    """Return the share of a layer's capacity that its states use: bits a neuron, from 0 to 1.

    ValueError if the entropy is negative or not finite, or there is no neuron.
    """
    if not (entropy_bits >= 0 and math.isfinite(entropy_bits)):
        raise ValueError(f"an entropy must be finite and not negative: found {entropy_bits} bits")
    if not neurons >= 1:
        raise ValueError(f"a layer has at least one neuron: found {neurons}")
    return float(entropy_bits / neurons)


def network_efficiency(efficiencies: Sequence[float] | Any) -> float | None:
    """Return the geometric mean of the layers' efficiencies.

    Parameters
    ----------
    efficiencies
        One number a layer, or a model whose ``efficiency_layers`` have them.

    Returns
    -------
    float or None
        0 if any layer's is 0; None if there are no layers.

    Raises
    ------
    ValueError
        If one is negative or not finite.
    """
    if hasattr(efficiencies, "efficiency_layers"):
        efficiencies = [layer.efficiency() for layer in efficiencies.efficiency_layers]
    for value in efficiencies:
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"an efficiency must be finite and not negative: found {value}")
    if len(efficiencies) == 0:
        return None
    if min(efficiencies) == 0:
        return 0.0
    return math.exp(math.fsum(math.log(value) for value in efficiencies) / len(efficiencies))


@overload
def aIQ(network_efficiency: float, accuracy: float, weight: float = 2) -> float: ...
@overload
def aIQ(network_efficiency: Any, accuracy: Any, weight: Any = 2) -> float | FloatArray: ...
def aIQ(network_efficiency: Any, accuracy: Any, weight: Any = 2) -> float | FloatArray:
    """Return the artificial intelligence quotient: accuracy and efficiency in one number.

    Numbers, arrays and tensors are taken, on any device, with or without gradients, and broadcast.

    Parameters
    ----------
    network_efficiency
        Geometric mean of the layers' efficiencies, from 0 to 1.
    accuracy
        Share of right answers, from 0 to 1.
    weight
        How many times the accuracy counts for each time that the efficiency does; any positive
        number.

    Returns
    -------
    float or numpy.ndarray
        (accuracy**weight * efficiency) ** (1 / (weight + 1)), from 0 to 1; float64, an array of the
        shape of the arguments unless all are single numbers.

    Raises
    ------
    ValueError
        If accuracy or efficiency is not from 0 to 1, but for 1e-5 that rounding in float32 may
        have added, or the weight is not positive and finite.
    """
    shares = _shares("accuracy", accuracy)
    efficiencies = _shares("network efficiency", network_efficiency)
    weights = _values("weight", weight)
    if not np.all((weights > 0) & np.isfinite(weights)):
        raise ValueError(f"weight must be positive and finite: found {weight}")
    # The root is taken first: accuracy**weight vanishes in float64 for a large weight.
    root = weights / (weights + 1)
    quotient = shares**root * efficiencies ** (1 - root)
    return float(quotient) if quotient.ndim == 0 else quotient


def _shares(name: str, value: Any) -> FloatArray:
    shares = _values(name, value)
    if not np.all((shares >= 0) & (shares <= 1 + ROUNDING)):
        raise ValueError(f"{name} must be from 0 to 1: found {value}")
    return np.minimum(shares, 1.0)


def _values(name: str, value: Any) -> FloatArray:
    """Return numbers, an array or a tensor as float64."""
    if hasattr(value, "detach"):
        # NumPy takes no tensors that require gradients, or lie on another device.
        value = value.detach().cpu().tolist()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be a number, an array or a tensor: found {value}") from None


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
    `aIQ`, too, or if a single group has all answers.

    Few wrong answers scatter unlike Student's t, and none do not scatter at all by groups: what the
    accuracy makes uncertain is the quotient at its limits (`rates.accuracy_limits`). These
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
