"""Efficiencies: entropy a neuron, of a layer, of a network, and weighed with its accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Protocol, overload

import numpy as np

from tsstore.statistics.numerics import FloatArray

ROUNDING: Final = 1e-5
"""A share may be so much above 1: averages of float32 are."""


def efficiency(entropy_bits: float, neurons: int) -> float:
    """Return the share of a layer's capacity that its states use.

    Parameters
    ----------
    entropy_bits
        Entropy of the layer's states, in bits.
    neurons
        Neurons of the layer; they can hold at most one bit each.

    Returns
    -------
    float
        Bits a neuron: from 0 (one state) to 1 (all states equally often).

    Raises
    ------
    ValueError
        If the entropy is negative or not finite, or there is no neuron.
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
