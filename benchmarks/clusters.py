"""Intervals where samples depend on each other, in clusters such as the images of one patient.

Draws clusters of 20 samples from known distributions. Some samples of a cluster, or all, are of
four states of its own, as if it were one sample with many rows; the rest are drawn as if there were
no clusters. Printed is how often the default interval (nominally 95 %) holds the truth if the
clusters are told (`dependent_by=`) and if they are not, and how often the layer is not usable::

    python benchmarks/clusters.py
"""

from __future__ import annotations

import argparse

import numpy as np
from counted import GROUPS, SEED, Counted
from draws import independent, mixed
from families import chosen_on, held_out

from tsstore.statistics.verdict import SATURATED, USABLE

FAMILIES = ("geometric", "log-normal", "few hot, tail", "Zipf 1.4")
NEURONS = 20
OWN = (0.2, 0.5, 1.0)
CLUSTERS = (10, 40, 200, 800)
SAMPLES = 20


def draw(rng, shares, clusters: int, own: float):
    """Draw a row for each sample, of shape (clusters, samples), such a share from own states."""
    rows = mixed(rng, shares, clusters, SAMPLES)
    others = independent(rng, shares, clusters, SAMPLES)
    return np.where(rng.random(rows.shape) < own, rows, others)


def judge(rng, shares, truth: float, clusters: int, own: float) -> tuple[bool, bool, bool]:
    """Draw once; return whether both intervals hold the truth, and whether the layer is limited."""
    rows = draw(rng, shares, clusters, own).reshape(-1, 1)
    cluster = np.repeat(np.arange(clusters), SAMPLES)
    told = Counted.of(rows, rng.integers(0, GROUPS, clusters)[cluster], NEURONS)
    alone = Counted.of(rows, rng.integers(0, GROUPS, len(rows)), NEURONS)
    entropies = told.entropy(clusters), alone.entropy()
    held = [i.lower <= truth <= i.upper for i in (e.interval(largest=NEURONS) for e in entropies)]
    return (*held, told.verdict(entropies[0], clusters).name not in (SATURATED, USABLE))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=100, help="draws of each size")
    arguments = parser.parse_args()
    print("Share of the intervals that hold the truth, and of the layers that are not usable")
    print(f"{'family':<16}{'own':>6}{'clusters':>10}{'told':>8}{'not told':>10}{'limited':>9}")
    for family in (f for f in (*chosen_on(), *held_out()) if f.name in FAMILIES):
        rng = np.random.default_rng([SEED, FAMILIES.index(family.name)])
        shares = family.draw.keywords["shares"]
        for own in OWN:
            for clusters in CLUSTERS:
                found = [
                    judge(rng, shares, family.truth, clusters, own)
                    for _ in range(arguments.repetitions)
                ]
                told, alone, limited = np.mean(found, axis=0)
                line = f"{family.name:<16}{own:>6}{clusters:>10}{told:>8.2f}{alone:>10.2f}"
                print(f"{line}{limited:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
