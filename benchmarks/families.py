"""Samples of states with known entropies, and what counting them gives."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tsstore.statistics import estimators
from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.intervals import Jackknifed, jackknifed_entropy
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import verdict

GROUPS = 32
SEED = 20


@dataclass
class Counted:
    """Spectrum and group changes of rows of shape (samples, positions)."""

    spectrum: Spectrum
    samples: int
    changes: GroupChanges

    @classmethod
    def of(cls, rows, group):
        """Count rows whose samples are in these groups, sorting them once."""
        samples, positions = rows.shape
        keys = rows.astype(np.int64) * samples + np.arange(samples)[:, None]
        keys, often = np.unique(keys, return_counts=True)
        _, first, state = np.unique(keys // samples, return_index=True, return_inverse=True)
        k, q = np.add.reduceat(often, first), np.bincount(state)
        of_key = group[keys % samples]
        pairs, index = np.unique(state * GROUPS + of_key, return_inverse=True)
        state, left_out = pairs // GROUPS, pairs % GROUPS
        rest_k = k[state] - np.bincount(index, often).astype(np.int64)
        rest_q = q[state] - np.bincount(index)
        left = rest_k > 0
        size = np.bincount(group, minlength=GROUPS)
        equal = np.bincount(of_key, often * (often - 1) // 2, minlength=GROUPS).astype(np.int64)
        numbers = [size, size * positions, equal, size * (positions * (positions - 1) // 2)]
        changes = GroupChanges.from_arrays(
            numbers,
            np.concatenate([left_out, left_out[left]]),
            np.concatenate([k[state], rest_k[left]]),
            np.concatenate([q[state], rest_q[left]]),
            np.repeat([-1, 1], [len(left), left.sum()]),
        )
        return cls(Spectrum.from_counts(k, q), samples, changes)

    def entropy(self) -> Jackknifed:
        """Return the default estimate and those without each group."""
        return jackknifed_entropy(self.spectrum, self.samples, self.changes)

    def verdict(self, entropy: Jackknifed) -> str:
        """Return the verdict's name."""
        return verdict(self.spectrum, self.samples, entropy.estimate, entropy.margin()).name


@dataclass
class Family:
    """A way to draw the rows of samples, with the entropy that they have."""

    name: str
    truth: float
    draw: Callable
    sizes: tuple[int, ...]


def entropy_of(shares) -> float:
    """Return the Shannon entropy in bits."""
    shares = shares[shares > 0]
    return -math.fsum(shares * np.log2(shares))


def independent(rng, shares, samples, positions=1):
    """Draw rows that do not depend on each other."""
    return np.searchsorted(np.cumsum(shares)[:-1], rng.random((samples, positions)), side="right")


def clumped(rng, shares, samples, positions=64, stay=0.8):
    """Draw rows each of which repeats the one before it in its sample with some chance."""
    rows = independent(rng, shares, samples, positions)
    for position in range(1, positions):
        repeats = rng.random(samples) < stay
        rows[repeats, position] = rows[repeats, position - 1]
    return rows


def mixed(rng, shares, samples, positions=32, kinds=4):
    """Draw rows of a sample from a few states of its own."""
    own = independent(rng, shares, samples, kinds)
    return np.take_along_axis(own, rng.integers(0, kinds, (samples, positions)), axis=1)


def known_families() -> Iterator[Family]:
    """Yield the families whose probabilities are written down."""
    rng = np.random.default_rng(SEED)
    dirichlet = rng.dirichlet(np.full(500, 0.4))
    log_normal = rng.lognormal(0, 1.5, 2_000)
    geometric = 0.97 ** np.arange(1_000)
    weights = {
        "uniform*": np.ones(1_000),
        "Zipf*": 1 / np.arange(1, 1_001),
        "Dirichlet*": dirichlet,
        "geometric": geometric,
        "log-normal": log_normal,
        "few hot, tail": np.r_[np.full(4, 0.2), np.full(400, 0.2 / 400)],
        "Zipf 1.4": np.arange(1, 5_001) ** -1.4,
    }
    for name, weight in weights.items():
        shares = weight / weight.sum()
        truth = entropy_of(shares)
        yield Family(
            name,
            truth,
            functools.partial(independent, shares=shares),
            (100, 400, 1_600, 6_400),
        )
        draw = functools.partial(clumped, shares=shares)
        yield Family(f"{name}, clumped", truth, draw, (64, 200, 600))
        if not name.endswith("*"):
            draw = functools.partial(mixed, shares=shares)
            yield Family(f"{name}, mixed", truth, draw, (64, 200, 600, 1_800))


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


def walking(rng, network, samples, positions=32, memory=0.9):
    """Draw states of a layer whose input drifts from position to position."""
    inputs = rng.normal(size=(samples, positions, network.inputs))
    for position in range(1, positions):
        inputs[:, position] *= math.sqrt(1 - memory**2)
        inputs[:, position] += memory * inputs[:, position - 1]
    return network.states(inputs)[0]


def centred(rng, network, samples, positions=32, common=0.5):
    """Draw states of a layer whose inputs have something in common in each sample."""
    inputs = math.sqrt(1 - common) * rng.normal(size=(samples, positions, network.inputs))
    inputs += math.sqrt(common) * rng.normal(size=(samples, 1, network.inputs))
    return network.states(inputs)[0]


def layer_families() -> Iterator[Family]:
    """Yield a random ReLU layer: with one position, a drifting input, a common input."""
    layer = Perceptron((12,), 6, SEED)
    truth = layer.truths[0]
    yield Family(
        "ReLU layer",
        truth,
        lambda rng, samples: layer.states(rng.normal(size=(samples, 1, 6)))[0],
        (100, 400, 1_600, 6_400),
    )
    for name, draw in (("ReLU, drift", walking), ("ReLU, common", centred)):
        draw = functools.partial(draw, network=layer)
        yield Family(name, truth, draw, (64, 200, 600, 1_800))


def even_families() -> Iterator[Family]:
    """Yield a handful of states that are nearly equally frequent."""
    for name, weights in {"two*": (45, 55), "three*": (36, 33, 31)}.items():
        shares = np.array(weights) / 100
        truth = entropy_of(shares)
        draw = functools.partial(independent, shares=shares)
        yield Family(name, truth, draw, (100, 400, 1_600))
        draw = functools.partial(clumped, shares=shares)
        yield Family(f"{name}, clumped", truth, draw, (64, 200, 600))


def later_families() -> Iterator[Family]:
    """Yield families that were added when all limits of the verdict stood, to confirm them."""
    rng = np.random.default_rng(SEED + 2)
    weights = {
        "binomial†": np.array([math.comb(60, k) * 0.3**k * 0.7 ** (60 - k) for k in range(61)]),
        "two levels†": np.r_[np.full(50, 0.9 / 50), np.full(500, 0.1 / 500)],
        "Dirichlet 0.1†": rng.dirichlet(np.full(2_000, 0.1)),
    }
    for name, weight in weights.items():
        shares = weight / weight.sum()
        truth = entropy_of(shares)
        draw = functools.partial(independent, shares=shares)
        yield Family(name, truth, draw, (400, 1_600, 6_400))
        draw = functools.partial(clumped, shares=shares)
        yield Family(f"{name}, clumped", truth, draw, (100, 300, 900))
        draw = functools.partial(mixed, shares=shares)
        yield Family(f"{name}, mixed", truth, draw, (200, 600, 1_800))
    layer = Perceptron((10,), 4, SEED + 2)
    draw = functools.partial(walking, network=layer)
    yield Family("narrow ReLU, drift†", layer.truths[0], draw, (100, 300, 900))
