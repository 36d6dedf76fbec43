"""Confidence intervals for a network's efficiency and aIQ.

The same groups of samples are left out in all layers, and in the accuracy, and the number is
computed anew from what is left: what layers have in common, because they saw the same samples, is
then in its standard error. How far off the number may be for other reasons follows from the layers:
it is computed from the lowest and from the highest entropy that each layer may have on average, and
from those that it may have if the samples, which are the same in all layers, missed as much as they
can have missed (`intervals`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tsstore.statistics.efficiency import aIQ, network_efficiency
from tsstore.statistics.intervals import Interval, Jackknifed, Reach
from tsstore.statistics.numerics import FloatArray
from tsstore.statistics.spectrum import IntArray


class Answers(NamedTuple):
    """How many answers of each group of samples were right.

    Attributes
    ----------
    right, samples
        int64 of shape (groups,): right answers, and samples that were answered.
    """

    right: IntArray
    samples: IntArray

    @property
    def share(self) -> float:
        """Share of all answers that are right; NaN if there are none."""
        samples = int(self.samples.sum())
        return int(self.right.sum()) / samples if samples else float("nan")


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
    reaches = _reaches(entropies, neurons, level, unseen_like_rare)
    return _interval(entropies, reaches, lambda bits, _: _efficiency(bits, neurons), level)


def aiq_interval(
    entropies: Sequence[Jackknifed],
    neurons: Sequence[int],
    accuracy: float | Answers,
    *,
    weight: float = 2,
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

    Returns
    -------
    Interval
        From 0 to 1.

    Raises
    ------
    ValueError
        As `network_interval` and `efficiency.aIQ`, or if a single group has all answers.
    """
    _check_layers(entropies, neurons)
    if isinstance(accuracy, Answers):
        overall, without = _accuracies(accuracy)
    else:
        overall, without = accuracy, np.full(len(entropies[0].without), accuracy)

    def quotient(bits: Sequence[float], group: int | None) -> float:
        share = overall if group is None else float(without[group])
        return aIQ(min(1.0, _efficiency(bits, neurons)), share, weight)

    reaches = _reaches(entropies, neurons, level, unseen_like_rare)
    return _interval(entropies, reaches, quotient, level)


def _reaches(
    entropies: Sequence[Jackknifed], neurons: Sequence[int], level: float, unseen_like_rare: bool
) -> list[Reach]:
    """Return how far off each layer's estimate may be: to no more than one bit a neuron."""
    reaches = (entropy.reach(level, unseen_like_rare=unseen_like_rare) for entropy in entropies)
    return [
        Reach(*(min(bits, n) for bits in reach)) for reach, n in zip(reaches, neurons, strict=True)
    ]


def _interval(
    entropies: Sequence[Jackknifed],
    reaches: Sequence[Reach],
    statistic: Callable[[Sequence[float], int | None], float],
    level: float,
) -> Interval:
    """Return the interval of a statistic of all layers' bits, and of the group left out."""
    reach = Reach(*(statistic(bits, None) for bits in zip(*reaches, strict=True)))
    table = np.stack([entropy.without for entropy in entropies], axis=1)
    without = [statistic(bits, group) for group, bits in enumerate(table.tolist())]
    jackknifed = Jackknifed(
        statistic([entropy.estimate for entropy in entropies], None),
        reach.lowest,
        reach.highest,
        without=np.array(without, dtype=np.float64),
        samples=np.max([entropy.samples for entropy in entropies], axis=0),
    )
    return jackknifed.within(reach, level, 1.0)


def _efficiency(bits: Sequence[float], neurons: Sequence[int]) -> float:
    efficiencies = [max(0.0, b) / n for b, n in zip(bits, neurons, strict=True)]
    return network_efficiency(efficiencies) or 0.0


def _accuracies(answers: Answers) -> tuple[float, FloatArray]:
    """Return the share of right answers, and those without each group."""
    right, samples = int(answers.right.sum()), int(answers.samples.sum())
    left = samples - answers.samples
    if samples == 0 or left.min() == 0:
        raise ValueError(
            f"an accuracy without each group needs answers of two groups: found {samples} answers, "
            f"at most {int(answers.samples.max(initial=0))} of them in one group"
        )
    return right / samples, (right - answers.right) / left


def _check_layers(entropies: Sequence[Jackknifed], neurons: Sequence[int]) -> None:
    groups = {len(entropy.without) for entropy in entropies}
    if len(entropies) != len(neurons) or len(groups) != 1:
        raise ValueError(
            f"a network needs layers with the same groups, and the neurons of each: found "
            f"{len(entropies)} layers, {len(neurons)} numbers of neurons, {sorted(groups)} groups"
        )
    if min(neurons) < 1:
        raise ValueError(f"a layer has at least one neuron: found {min(neurons)}")
