"""Intervals for differences of networks, for aIQ, and for fewer samples, against known numbers.

Draws samples whose entropies and accuracies are known and prints how often an interval of nominal
95 % held the truth, and its median width::

    python benchmarks/comparisons.py
    python benchmarks/comparisons.py --repetitions 1000 --only aiq

Differences are of the efficiency of two layers with random weights that saw the same inputs
(paired) or inputs of their own, and of Zipf's distribution less an even one ("unlike"); "alike" is
the interval under the assumption that unseen states are like the rare ones that were seen, and
biases alike. aIQ is of a layer of four states, with independent answers and with answers of
clusters of ten samples that are all right or all wrong. The seeds are fixed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from counted import GROUPS, SEED, Counted
from draws import Perceptron, entropy_of, independent

from tsstore.statistics.efficiency import aIQ, aiq_interval, efficiency_of, propagated
from tsstore.statistics.intervals import Interval, difference_interval
from tsstore.statistics.rarefaction import Rarefaction, scatter_at
from tsstore.statistics.rates import Answers

EVEN = np.array([0.4, 0.3, 0.2, 0.1])
TWENTY = np.full(20, 0.05)
ENTROPY = math.log2(20)
INPUTS = 6


def judged(intervals: list[Interval], truth: float) -> str:
    """Return what share of intervals holds the truth, its Monte Carlo error, and their width."""
    held = np.mean([i.lower <= truth <= i.upper for i in intervals])
    error = math.sqrt(max(held * (1 - held), 0.5 / len(intervals)) / len(intervals))
    width = np.median([i.upper - i.lower for i in intervals])
    return f"{held:.3f} ± {error:.3f}  width {width:.4f}"


def estimated(rows, group, neurons, like_rare=False):
    """Return an efficiency as `difference_interval` takes it."""
    known = Counted.of(rows, group, neurons).entropy()
    own = [neurons]
    return propagated([known], own, lambda bits: efficiency_of(bits, own), 0.95, like_rare)


def layers(rng, networks, samples):
    """Return the states of both networks for the same inputs."""
    inputs = rng.normal(size=(samples, 4, INPUTS))
    return [network.states(inputs)[0] for network in networks]


def unlike(rng, samples):
    """Return rows of Zipf's distribution, and of one whose states are equally frequent."""
    weights = 1 / np.arange(1, 201)
    return [independent(rng, shares, samples, 4) for shares in (weights / weights.sum(), TWENTY)]


def differences(repetitions: int) -> Iterator[str]:
    """Yield a line for each kind and number of samples."""
    networks = [Perceptron((10,), INPUTS, SEED) for _ in range(2)]
    networks[1].weights[0] = networks[0].weights[0] + 0.05 * Perceptron((10,), INPUTS, 1).weights[0]
    weights = 1 / np.arange(1, 201)
    kinds = {
        "paired": (True, partial(layers, networks=networks), networks),
        "independent": (False, partial(layers, networks=networks), networks),
        "unlike": (False, unlike, None),
    }
    for name, (paired, draw, own) in kinds.items():
        bits = [n.truths[0] for n in own] if own else [entropy_of(weights / weights.sum()), ENTROPY]
        truth = (bits[0] - bits[1]) / 10
        for samples in (200, 1_000, 4_000):
            rng, found, narrow = np.random.default_rng([SEED, samples, paired]), [], []
            for _ in range(repetitions):
                groups = [rng.integers(0, GROUPS, samples) for _ in range(2)]
                one, other = draw(rng, samples=samples)
                if not paired:
                    other = draw(rng, samples=samples)[1]
                for alike, into in ((False, found), (True, narrow)):
                    sides = (
                        estimated(one, groups[0], 10, alike),
                        estimated(other, groups[0 if paired else 1], 10, alike),
                    )
                    into.append(difference_interval(*sides, paired=paired, alike=alike))
            scatter = np.median([one.standard_error for one in found])
            yield (
                f"{name:<12}{samples:>7,}  {judged(found, truth)}  alike "
                f"{judged(narrow, truth)}  standard error {scatter:.5f}"
            )


def quotients(repetitions: int, size: int) -> Iterator[str]:
    """Yield a line for each number of samples; answers come in clusters of a size."""
    bits, held = entropy_of(EVEN), {}
    for samples in (64, 100, 200, 1_000, 4_000):
        for share in (0.5, 0.9, 0.98, 0.99, 0.999, 1.0):
            rng = np.random.default_rng([SEED, samples, round(1_000 * share)])
            truth = aIQ(bits / 4, share)
            held[share] = np.zeros(2)
            for _ in range(repetitions):
                clusters = -(-samples // size)
                group = np.repeat(rng.integers(0, GROUPS, clusters), size)[:samples]
                right = np.repeat(rng.random(clusters) < share, size)[:samples]
                entropy = Counted.of(independent(rng, EVEN, samples, 8), group, 4).entropy()
                answers = Answers(
                    np.bincount(group, right, GROUPS).astype(np.int64),
                    np.bincount(group, minlength=GROUPS),
                )
                for number, alike in enumerate((False, True)):
                    found = aiq_interval(
                        [entropy],
                        [4],
                        answers,
                        clusters=clusters if size > 1 else None,
                        unseen_like_rare=alike,
                    )
                    held[share][number] += found.lower <= truth <= found.upper
        cells = ("/".join(f"{number / repetitions:.3f}" for number in held[s]) for s in held)
        yield f"{samples:>7,}  " + "  ".join(cells)


def bands(repetitions: int) -> Iterator[str]:
    """Yield a line for each number of samples that is rarefied to."""
    weights = 1 / np.arange(1, 301)
    shares, samples = weights / weights.sum(), 400
    rng = np.random.default_rng([SEED, 7])
    for fewer in (20, 100, 390):
        draws = [np.bincount(independent(rng, shares, fewer)[:, 0]) / fewer for _ in range(20_000)]
        truth = float(np.mean([entropy_of(d) for d in draws]))
        found = []
        for _ in range(repetitions):
            one = Counted.of(independent(rng, shares, samples), rng.integers(0, GROUPS, samples), 9)
            error = scatter_at(one.spectrum, samples, one.changes, [fewer])[0].incidence_entropy
            bits = Rarefaction(one.spectrum, samples).entropy(fewer)
            found.append(Interval(bits, bits - 2.04 * error, bits + 2.04 * error, error, 0.95))
        yield f"{fewer:>7,} of {samples}  {judged(found, truth)}"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=300, help="draws of each size")
    parser.add_argument("--only", choices=("differences", "aiq", "bands"))
    arguments = parser.parse_args()
    repetitions = arguments.repetitions
    shares = "accuracy .5  .9  .98  .99  .999  1"
    tables = {
        "differences": ("Difference of two layers", differences(repetitions)),
        "aiq": (f"aIQ, {shares}", quotients(repetitions, 1)),
        "aiq ": (f"aIQ of clusters of ten, {shares}", quotients(repetitions, 10)),
        "bands": ("Entropy of fewer samples", bands(repetitions)),
    }
    for name, (title, lines) in tables.items():
        if arguments.only in (None, name.strip()):
            print(f"\n{title}")
            for line in lines:
                print(line, flush=True)


if __name__ == "__main__":
    main()
