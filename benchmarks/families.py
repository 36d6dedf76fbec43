"""Families of distributions with known entropies, on which estimates and verdicts are tried.

The rules of interval, bound and verdict were chosen on those of `chosen_on`. Those of `held_out`
were looked at when the rules stood, and are there to confirm them: one that fails is reported, goes
over to the others, and another one takes its place.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from counted import SEED
from draws import (
    FewStates,
    Perceptron,
    PowerLaw,
    Rare,
    alone,
    centred,
    clumped,
    copied,
    entropy_of,
    independent,
    mixed,
    neurons,
    ragged,
    shares_of,
    walking,
)

ROWS = (400, 1_600, 6_400, 25_600)
SAMPLES = (100, 400, 1_600, 4_800)


@dataclass
class Family:
    """A way to draw the rows of samples of a layer, with the entropy that they have.

    Attributes
    ----------
    neurons
        Of the layer: how many states there may be.
    truth
        In bits.
    draw
        Takes a generator and a number of samples.
    sizes
        Numbers of samples.
    """

    name: str
    neurons: int
    truth: float
    draw: Callable
    sizes: tuple[int, ...]


def chosen_on() -> Iterator[Family]:
    """Yield the families on which the rules were chosen."""
    rng = np.random.default_rng(SEED)
    yield from known("uniform", np.ones(1_000), (independent, clumped))
    yield from known("Zipf 1", 1 / np.arange(1, 1_001), (independent, clumped))
    yield from known("Dirichlet 0.4", rng.dirichlet(np.full(500, 0.4)), (independent, mixed))
    few_hot = np.r_[np.full(4, 0.2), np.full(400, 0.2 / 400)]
    yield from known("few hot, tail", few_hot, (independent, mixed))
    yield from known("Zipf 1.4", np.arange(1, 5_001) ** -1.4, (independent, clumped))
    yield from known("two states", [45, 55], (independent, clumped), bits=1)
    yield from known("three states", [36, 33, 31], (independent, clumped), bits=2)
    layer = Perceptron((12,), 6, SEED)
    yield Family("ReLU", 12, layer.truths[0], functools.partial(alone, network=layer), ROWS)
    drift = functools.partial(walking, network=layer)
    yield Family("ReLU, drift", 12, layer.truths[0], drift, SAMPLES)
    even = np.full(256, 1 / 256)
    yield rare("1.5 % of rows over 2^40", 48, Rare(even, 0.015, 40), (1_000, 10_000, 60_000))
    yield rare("1.5 % of rows over 2^20", 24, Rare(even, 0.015, 20), (1_000, 10_000, 60_000))
    classes = Rare(even[:64] * 4, 0.01, 40, True, 32)
    yield rare("1 % of samples over 2^40", 64, classes, (100, 300, 1_000, 3_000))
    yield power_law("power law 1.5 over 2^20", 24, 1.5, 20)
    yield firing("a neuron, p = .1", [0.1], (300, 3_000, 10_000, 30_000))
    yield firing("a neuron, p = .0005", [0.0005], (300, 1_000, 10_000, 100_000))
    yield firing("ten neurons, p = .003", [0.003] * 10, (300, 1_000, 3_000, 10_000))
    yield few_states("10 % blank", FewStates(0.10, 1, 20), (16, 100))
    yield few_states("5 % blank", FewStates(0.05, 1, 20), (32, 100))
    # Held out at first, when nothing looked for copies, and held in 5 %.
    yield copies("geometric, four times", 0.97 ** np.arange(1_000), 4, (1_600, 6_400))


def held_out() -> Iterator[Family]:
    """Yield the families that confirm the rules."""
    rng = np.random.default_rng(SEED + 2)
    yield from known("geometric", 0.97 ** np.arange(1_000), (independent, clumped, mixed))
    yield from known("log-normal", rng.lognormal(0, 1.5, 2_000), (independent, mixed))
    binomial = [math.comb(60, k) * 0.3**k * 0.7 ** (60 - k) for k in range(61)]
    yield from known("binomial", binomial, (independent, clumped, mixed))
    two_levels = np.r_[np.full(50, 0.9 / 50), np.full(500, 0.1 / 500)]
    yield from known("two levels", two_levels, (independent, clumped))
    yield from known("Dirichlet 0.1", rng.dirichlet(np.full(2_000, 0.1)), (independent, mixed))
    layer = Perceptron((12,), 6, SEED)
    common = functools.partial(centred, network=layer)
    yield Family("ReLU, common", 12, layer.truths[0], common, SAMPLES)
    narrow = Perceptron((10,), 4, SEED + 2)
    drift = functools.partial(walking, network=narrow)
    yield Family("narrow ReLU, drift", 10, narrow.truths[0], drift, SAMPLES)
    zipf = shares_of(1 / np.arange(1, 129))
    yield rare("4 % of rows over 2^40", 48, Rare(zipf, 0.04, 40), (1_000, 10_000, 60_000))
    yield rare("0.3 % of rows over 2^50", 64, Rare(zipf, 0.003, 50), (1_000, 10_000, 60_000))
    yield rare("2 % of rows over 2^12", 16, Rare(zipf, 0.02, 12), (1_000, 10_000, 60_000))
    classes = Rare(zipf, 0.03, 30, True, 8)
    yield rare("3 % of samples over 2^30", 40, classes, (100, 300, 1_000, 3_000))
    classes = Rare(zipf, 0.002, 60, True)
    yield rare("0.2 % of samples over 2^60", 96, classes, (300, 1_000, 3_000, 30_000))
    classes = Rare(np.ones(1), 0.01, 20, True, 16)
    yield rare("constant, but 1 % of samples", 24, classes, (100, 300, 1_000, 3_000))
    yield power_law("power law 1.5 over 2^60", 64, 1.5, 60)
    yield power_law("power law 1.2 over 2^60", 64, 1.2, 60)
    yield power_law("power law 2 over 2^30", 32, 2.0, 30)
    yield firing("a neuron, p = .02", [0.02], (300, 1_000, 10_000, 30_000))
    yield firing("64 neurons, p = .001", [0.001] * 64, (300, 1_000, 3_000, 10_000))
    yield firing("a constant layer", [0.0] * 32, (64, 300, 1_000, 10_000))
    yield few_states("25 % blank", FewStates(0.25, 1, 20), (8, 64))
    yield few_states("2 % blank", FewStates(0.02, 1, 20), (64, 200))
    yield few_states("10 % of four states", FewStates(0.10, 4, 14), (8, 16, 64, 200))
    yield few_states("20 % half and half", FewStates(0.20, 3, 11, 64, 2), (8, 16, 64, 200))
    kinds = [shares_of(0.9 ** np.arange(100)), np.r_[np.zeros(100), np.full(400, 1 / 400)]]
    together = np.zeros(500)
    together[:100] = 4 / 68 * kinds[0]
    together += 64 / 68 * kinds[1]
    unequal = functools.partial(ragged, kinds=kinds, lengths=(4, 64))
    yield Family("4 and 64 positions", 20, entropy_of(together), unequal, SAMPLES)
    yield copies("binomial, twice", binomial, 2, (1_600, 6_400))
    yield copies("two levels, five times", two_levels, 5, (2_000, 6_000))


def known(name: str, weights, ways, bits: int = 20) -> Iterator[Family]:
    """Yield the families of the same shares, drawn in several ways."""
    shares = shares_of(weights)
    for way in ways:
        shown = name if way is independent else f"{name}, {way.__name__}"
        sizes = ROWS if way is independent else SAMPLES
        draw = functools.partial(way, shares=shares)
        yield Family(shown, bits, entropy_of(shares), draw, sizes)


def rare(name: str, neurons: int, draw: Rare, sizes: tuple[int, ...]) -> Family:
    """Return a family with a small part that is very diverse."""
    return Family(name, neurons, draw.truth, draw, sizes)


def copies(name: str, weights, times: int, sizes: tuple[int, ...]) -> Family:
    """Return a family of samples that come so many times each."""
    shares = shares_of(weights)
    draw = functools.partial(copied, shares=shares, times=times)
    return Family(name, 20, entropy_of(shares), draw, sizes)


def few_states(name: str, draw: FewStates, sizes: tuple[int, ...]) -> Family:
    """Return a family of diverse samples, some of which show few states."""
    return Family(name, 24, draw.truth, draw, sizes)


def power_law(name: str, neurons: int, power: float, bits: int) -> Family:
    """Return a family with a heavy tail."""
    draw = PowerLaw(power, bits)
    return Family(name, neurons, draw.truth, draw, (1_000, 10_000, 60_000))


def firing(name: str, rates: list[float], sizes: tuple[int, ...]) -> Family:
    """Return a family of neurons that fire independently of each other."""
    truth = math.fsum(entropy_of([rate, 1 - rate]) for rate in rates)
    draw = functools.partial(neurons, rates=np.array(rates))
    return Family(name, len(rates), truth, draw, sizes)
