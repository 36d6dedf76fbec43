"""Time that the numbers of a layer take, from a spectrum of a million entries.

Makes up a layer whose states nearly all differ in multiplicity or incidence, and what leaving each
of 32 groups of samples out changes in its spectrum, and takes all numbers of an analysis from it::

    python benchmarks/numbers_cost.py
    python benchmarks/numbers_cost.py --states 10_000_000 --repeats 1

Printed are the median seconds of each number by itself, of all together as `LayerResult.to_dict`
gives them, where what they share is computed once, and of what fewer samples would have shown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tsstore.analysis.results.layer import LayerResult
from tsstore.statistics.estimators import ESTIMATORS
from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.statistics.rarefaction import Rarefaction
from tsstore.statistics.spectrum import Spectrum

GROUPS = 32
POSITIONS = 64
LARGEST_ROWS = 1_000_000

NUMBERS: dict[str, Callable[[LayerResult], Any]] = {
    "plug-in": lambda layer: layer.entropy("plug-in"),
    "estimate": lambda layer: layer.entropy(),
    "interval": lambda layer: layer.interval(),
    "lower bound": lambda layer: layer.entropy_lower_bound,
    "verdict": lambda layer: layer.reason,
    "coverage": lambda layer: layer.coverage,
    "richness": lambda layer: layer.richness(),
    "by rows": lambda layer: [layer.entropy(name) for name in ESTIMATORS],
}
"""What an analysis shows: all of these together are to take less than a second."""

ASKED_FOR: dict[str, Callable[[LayerResult], Any]] = {
    "rarefied": lambda layer: layer.rarefied(layer.samples // 10),
    "rarefied entropy": lambda layer: Rarefaction(layer.spectrum, layer.samples).entropy(
        layer.samples // 10
    ),
    "curve of 30": lambda layer: layer.rarefaction_curve(30),
}


def made_up(states: int) -> LayerResult:
    """Return a layer of so many distinct states, each in one to four of the groups.

    Most of them differ in multiplicity or incidence: of 1,160,000 states the spectrum has a million
    entries, and there are five million changes.
    """
    rng = np.random.default_rng(1)
    state = np.repeat(np.arange(states), rng.integers(1, 5, states))
    group = rng.integers(0, GROUPS, len(state))
    state, group = np.divmod(np.unique(state * GROUPS + group), GROUPS)
    q = np.exp(rng.uniform(0, np.log(LARGEST_ROWS / 8), len(state))).astype(np.int64)
    each = rng.uniform(1, 8, len(state))
    k = np.maximum(q, (q * each).astype(np.int64))
    all_k, all_q = (np.bincount(state, part).astype(np.int64) for part in (k, q))
    rest_k, rest_q = all_k[state] - k, all_q[state] - q
    left = rest_k > 0
    equal = np.bincount(group, q * each**2, minlength=GROUPS).astype(np.int64)
    rows = np.bincount(group, k, minlength=GROUPS).astype(np.int64)
    samples = rows // POSITIONS
    changes = SpectrumDelta.from_arrays(
        [samples, rows, equal, samples * POSITIONS**2],
        np.concatenate([group, group[left]]),
        np.concatenate([all_k[state], rest_k[left]]),
        np.concatenate([all_q[state], rest_q[left]]),
        np.repeat([-1, 1], [len(left), left.sum()]),
    )
    return LayerResult(
        name="made up",
        neurons=64,
        samples=int(samples.sum()),
        spectrum=Spectrum.from_counts(all_k, all_q),
        equal_pairs_within_samples=int(equal.sum()),
        pairs_within_samples=int(samples.sum()) * POSITIONS**2,
        changes=changes,
    )


def seconds(function: Callable[[LayerResult], Any], layer: LayerResult, repeats: int) -> float:
    """Return the median time of a function of the layer, of which nothing is known yet."""
    times = []
    function(layer)  # imports what it needs
    for _ in range(repeats):
        fresh = replace(layer, spectrum=replace(layer.spectrum))
        begin = time.perf_counter()
        function(fresh)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--states", type=int, default=1_160_000, help="states")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    layer = made_up(arguments.states)
    print(f"{layer.spectrum}, {len(layer.changes):,} changes")
    print(f"{'':<14}{'without groups':>16}{'with groups':>16}")
    alone = replace(layer, changes=None)
    for name, function in {**NUMBERS, "all": LayerResult.to_dict, **ASKED_FOR}.items():
        times = [seconds(function, one, arguments.repeats) for one in (alone, layer)]
        print(f"{name:<14}" + "".join(f"{time:>16.3f}" for time in times))


if __name__ == "__main__":
    main()
