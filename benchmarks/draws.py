"""Ways to draw the states of samples, whose entropy is known."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from counted import SEED

from tsstore.statistics import estimators
from tsstore.statistics.spectrum import Spectrum


def entropy_of(shares) -> float:
    """Return the Shannon entropy in bits."""
    shares = np.asarray(shares, dtype=float)
    shares = shares[shares > 0]
    return -math.fsum(shares * np.log2(shares))


def shares_of(weights):
    """Return weights as shares of 1."""
    weights = np.asarray(weights, dtype=float)
    return weights / weights.sum()


def independent(rng, shares, samples, positions=1):
    """Draw rows that do not depend on each other."""
    return np.searchsorted(np.cumsum(shares)[:-1], rng.random((samples, positions)), side="right")


def clumped(rng, shares, samples, positions=32, stay=0.8):
    """Draw rows each of which repeats the one before it in its sample with some chance."""
    rows = independent(rng, shares, samples, positions)
    for position in range(1, positions):
        repeats = rng.random(samples) < stay
        rows[repeats, position] = rows[repeats, position - 1]
    return rows


def mixed(rng, shares, samples, positions=16, kinds=4):
    """Draw rows of a sample from a few states of its own."""
    own = independent(rng, shares, samples, kinds)
    return np.take_along_axis(own, rng.integers(0, kinds, (samples, positions)), axis=1)


def copied(rng, shares, samples, times=4):
    """Draw each sample so many times: epochs over the same ones."""
    return np.tile(independent(rng, shares, samples // times), (times, 1))


def ragged(rng, kinds, lengths, samples):
    """Draw samples of several kinds alike, each with its shares and its number of positions."""
    kind = rng.integers(0, len(kinds), samples)
    positions = np.asarray(lengths)[kind]
    sample = np.repeat(np.arange(samples), positions)
    rows = np.empty(len(sample), np.int64)
    for number, shares in enumerate(kinds):
        of_kind = kind[sample] == number
        rows[of_kind] = independent(rng, shares, of_kind.sum())[:, 0]
    return rows, sample


def neurons(rng, rates, samples):
    """Draw neurons that fire independently of each other, at these rates."""
    return (rng.random((samples, 1, len(rates))) < rates) @ (1 << np.arange(len(rates)))


@dataclass(frozen=True)
class Rare:
    """A few common states, and a small share of others that are evenly spread over many.

    Attributes
    ----------
    common
        Shares of the common states among themselves.
    share
        Of the other ones, among all rows.
    bits
        Base 2 logarithm of how many there are.
    whole_samples
        Whether all rows of a sample are of the one or the other kind.
    """

    common: np.ndarray
    share: float
    bits: int
    whole_samples: bool = False
    positions: int = 1

    @property
    def truth(self) -> float:
        """The entropy in bits."""
        between = entropy_of([self.share, 1 - self.share])
        return between + (1 - self.share) * entropy_of(self.common) + self.share * self.bits

    def __call__(self, rng, samples):
        """Draw rows."""
        rows = independent(rng, self.common, samples, self.positions).astype(np.int64)
        shape = (samples, 1) if self.whole_samples else rows.shape
        rare = np.broadcast_to(rng.random(shape) < self.share, rows.shape)
        rows[rare] = len(self.common) + rng.integers(0, 1 << self.bits, rare.sum())
        return rows


@dataclass(frozen=True)
class FewStates:
    """Samples of rows spread evenly over many states, and a share that shows few.

    Attributes
    ----------
    share
        Of the samples that show few: each shows one state, or two in equal parts.
    states
        How many states these samples show together.
    bits
        Base 2 logarithm of how many states the others have.
    """

    share: float
    states: int
    bits: int
    positions: int = 576
    of_each: int = 1

    @property
    def truth(self) -> float:
        """The entropy in bits."""
        few = self.share * math.log2(self.states)
        return entropy_of([self.share, 1 - self.share]) + few + (1 - self.share) * self.bits

    def __call__(self, rng, samples):
        """Draw rows."""
        rows = self.states + rng.integers(0, 1 << self.bits, (samples, self.positions))
        few = rng.random(samples) < self.share
        own = rng.integers(0, self.states, (few.sum(), self.of_each))
        rows[few] = np.repeat(own, self.positions // self.of_each, axis=1)
        return rows


class PowerLaw:
    """States whose shares fall like a power, above 1, of their rank: up to 2**60 of them.

    The first four million ranks are summed and drawn exactly, the rest by the integral.
    """

    def __init__(self, power: float, bits: int) -> None:
        self.power, states = power, 2.0**bits
        ranks = np.arange(1, min(1 << bits, 1 << 22) + 1, dtype=float)
        weights = ranks**-power
        self.from_, self.to = len(ranks) + 0.5, states + 0.5
        tail = self._integral(self.from_) - self._integral(self.to)
        logs = self._integral_of_logarithm(self.from_) - self._integral_of_logarithm(self.to)
        total = weights.sum() + tail
        self.cumulated = np.cumsum(weights) / total
        logs += weights @ np.log(ranks)
        self.truth = (math.log(total) + power * logs / total) / math.log(2)

    def _integral(self, x: float) -> float:
        return x ** (1 - self.power) / (self.power - 1)

    def _integral_of_logarithm(self, x: float) -> float:
        return self._integral(x) * (math.log(x) + 1 / (self.power - 1))

    def __call__(self, rng, samples, positions=1):
        """Draw rows."""
        places = rng.random((samples, positions))
        rows = np.searchsorted(self.cumulated, places, side="right").astype(np.int64)
        far = rows == len(self.cumulated)
        low, high = self._integral(self.to), self._integral(self.from_)
        left = (low + (high - low) * rng.random(far.sum())) * (self.power - 1)
        rows[far] = np.rint(left ** (1 / (1 - self.power))).astype(np.int64)
        return rows


class Perceptron:
    """Layers with random weights on Gaussian inputs; a state is one whole number."""

    def __init__(self, neurons: tuple[int, ...], inputs: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        sizes = [inputs, *neurons]
        self.neurons, self.inputs = neurons, inputs
        self.weights = [
            rng.normal(0, math.sqrt(2 / a), (a, b)) for a, b in itertools.pairwise(sizes)
        ]
        self.biases = [rng.normal(0, 0.3, b) for b in neurons]

    def states(self, values):
        """Return the states of each layer for inputs of shape (..., inputs)."""
        found = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            values = np.maximum(values @ weight + bias, 0)
            found.append((values > 0) @ (1 << np.arange(len(bias))))
        return found

    @functools.cached_property
    def truths(self) -> list[float]:
        """The layers' entropies from four million draws, known to about 0.001 bits."""
        rng = np.random.default_rng(SEED)
        counts = [np.zeros(1 << n, dtype=np.int64) for n in self.neurons]
        for _ in range(40):
            for total, states in zip(
                counts, self.states(rng.normal(size=(100_000, self.inputs))), strict=True
            ):
                total += np.bincount(states, minlength=total.size)
        return [estimators.chao_wang_jost(Spectrum.from_counts(c[c > 0])) for c in counts]


def alone(rng, network, samples):
    """Draw the states of a layer of one position."""
    return network.states(rng.normal(size=(samples, 1, network.inputs)))[0]


def walking(rng, network, samples, positions=16, memory=0.9):
    """Draw states of a layer whose input drifts from position to position."""
    inputs = rng.normal(size=(samples, positions, network.inputs))
    for position in range(1, positions):
        inputs[:, position] *= math.sqrt(1 - memory**2)
        inputs[:, position] += memory * inputs[:, position - 1]
    return network.states(inputs)[0]


def centred(rng, network, samples, positions=16, common=0.5):
    """Draw states of a layer whose inputs have something in common in each sample."""
    inputs = math.sqrt(1 - common) * rng.normal(size=(samples, positions, network.inputs))
    inputs += math.sqrt(common) * rng.normal(size=(samples, 1, network.inputs))
    return network.states(inputs)[0]
