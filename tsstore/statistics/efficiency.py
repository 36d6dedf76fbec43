"""Efficiencies, entropy a neuron, of a layer and of a network; and weighed with its accuracy.

Right answers of independent samples are binomial, and have exact limits (Clopper and Pearson 1934,
Biometrika 26): quantiles of the beta distribution, which also say something where all answers are
right. Answers of one cluster of samples resemble each other: they count for as many as independent
ones that would scatter alike, as groups of clusters tell (Korn and Graubard 1998, Survey
Methodology 24).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol, overload

import numpy as np

from tsstore.statistics.jackknife import FEWEST_GROUPS, standard_error, student_quantile
from tsstore.statistics.special import FloatArray, binomial_limits, check_level
from tsstore.statistics.spectrum import IntArray

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


class Layer(Protocol):
    """Anything that has an efficiency."""

    def efficiency(self) -> float:
        """Return the efficiency."""


class Network(Protocol):
    """Anything that has layers with an efficiency, such as a model with capture hooks."""

    @property
    def efficiency_layers(self) -> Sequence[Layer]:
        """The layers."""


def network_efficiency(efficiencies: Sequence[float] | Network) -> float | None:
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


FEWEST_WRONG_GROUPS = 10
"""With right or wrong answers in fewer groups these do not tell how much clusters scatter."""


class Answers(NamedTuple):
    """Right answers of each group of samples, and all of its answers, int64 (groups,)."""

    right: IntArray
    samples: IntArray

    @property
    def share(self) -> float:
        """Share of all answers that are right; NaN if there are none."""
        samples = int(self.samples.sum())
        return int(self.right.sum()) / samples if samples else float("nan")

    def shares_without(self) -> FloatArray:
        """Return the share of right answers without each group, float64 (groups,).

        ValueError if there are answers of one group only.
        """
        right, samples = int(self.right.sum()), int(self.samples.sum())
        left = samples - self.samples
        if samples == 0 or left.min() == 0:
            raise ValueError(
                f"an accuracy without each group needs answers of two groups: found {samples} "
                f"answers, at most {int(self.samples.max(initial=0))} of them in one group"
            )
        shares: FloatArray = (right - self.right) / left
        return shares


def accuracy_limits(
    answers: Answers, level: float = 0.95, clusters: int | None = None
) -> tuple[float, float]:
    """Return confidence limits of an accuracy, from 0 to 1.

    Where there are clusters, samples of one depend on each other and lie in one group; None if each
    sample is on its own. ValueError if the level is not between 0 and 1, there are no answers, or
    those of clusters are of one group only.
    """
    check_level(level)
    if not (samples := int(answers.samples.sum())):
        raise ValueError("an accuracy needs answers: there are none")
    number = samples if clusters is None else _effective_answers(answers, level, clusters)
    right = answers.share * number
    lower, upper = binomial_limits(right, number - right, level)
    return float(lower), float(upper)


def _effective_answers(answers: Answers, level: float, clusters: int) -> float:
    """Return how many independent answers scatter like those of clusters."""
    samples, share = int(answers.samples.sum()), answers.share
    telling = min(
        int(np.count_nonzero(part)) for part in (answers.right, answers.samples - answers.right)
    )
    if telling < FEWEST_WRONG_GROUPS:
        return float(min(samples, clusters))
    held = answers.samples > 0
    error = standard_error(answers.shares_without()[held])
    groups = max(int(np.count_nonzero(held)), FEWEST_GROUPS)
    wider = student_quantile(level, groups - 1) / student_quantile(level, 10**6)
    return float(min(samples, share * (1 - share) / (error * wider) ** 2))
