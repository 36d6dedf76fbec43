"""What is estimated of samples of different length: of all rows, some positions, a share of them.

A quarter of the samples has 40 to 64 positions of 64 states, the others have 4 to 8 of 4 states, so
that the mean state of a row is another one than that of a sample. Prints efficiencies of 10
neurons: the truth of either target, then for each way to record the mean of the plug-in and of the
default estimate over the draws, the RMSE of the latter about the truth of rows, how often its
interval holds that truth, and verdicts::

    python benchmarks/targets.py

The seed is fixed.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from counted import GROUPS, SEED, Counted
from draws import entropy_of

from tsstore.recording.packing.positions import choose_positions
from tsstore.statistics.estimators import plug_in

NEURONS = 10
LONG = 0.25
WAYS = (None, 16, 4, 1, 0.25, 0.05, 0.01)


def draw(rng, samples):
    """Return rows, and the number of positions of each sample."""
    is_long = rng.random(samples) < LONG
    lengths = np.where(is_long, rng.integers(40, 65, samples), rng.integers(4, 9, samples))
    of_long = np.repeat(is_long, lengths)
    rows = np.where(of_long, rng.integers(0, 64, len(of_long)), rng.integers(0, 4, len(of_long)))
    return rows, lengths


def truths() -> tuple[float, float]:
    """Return the efficiency of a row, and of a row of a sample that is drawn first."""
    of_rows = LONG * 52 / (LONG * 52 + (1 - LONG) * 6)
    found = []
    for weight in (of_rows, LONG):
        shares = np.full(64, weight / 64)
        shares[:4] += (1 - weight) / 4
        found.append(entropy_of(shares) / NEURONS)
    return found[0], found[1]


def recorded(rng, samples, positions, seed) -> Counted:
    """Draw samples, and count those positions that are recorded."""
    rows, lengths = draw(rng, samples)
    sample = np.repeat(np.arange(samples), lengths)
    if positions is not None:
        chosen = choose_positions(seed, 0, 0, lengths, positions)
        there = chosen < lengths[:, None]
        starts = np.cumsum(lengths) - lengths
        rows = rows[(starts[:, None] + np.where(there, chosen, 0))[there]]
        sample = np.repeat(np.arange(samples), there.sum(axis=1))
    return Counted.of(rows, rng.integers(0, GROUPS, samples), NEURONS, sample)


def main() -> None:
    """Parse, draw, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=60)
    repetitions = parser.parse_args().repetitions
    of_rows, of_samples = truths()
    print(f"efficiency of a row {of_rows:.3f}, of a row of a sample {of_samples:.3f}")
    print(f"{'positions':>9}{'m':>7}{'plug-in':>9}{'estimate':>10}{'RMSE':>7}{'held':>6}  verdicts")
    for samples in (200, 1_000, 4_000):
        for way, positions in enumerate(WAYS):
            plug_ins, estimates, held, verdicts = [], [], 0, Counter()
            for number in range(repetitions):
                rng = np.random.default_rng([SEED, samples, way, number])
                counted = recorded(rng, samples, positions, number)
                entropy = counted.entropy()
                interval = entropy.interval(0.95, NEURONS)
                plug_ins.append(plug_in(counted.spectrum) / NEURONS)
                estimates.append(entropy.estimate / NEURONS)
                held += interval.lower <= of_rows * NEURONS <= interval.upper
                verdicts[counted.verdict(entropy).name] += 1
            error = np.sqrt(np.mean((np.array(estimates) - of_rows) ** 2))
            named = ", ".join(f"{name} {often}" for name, often in verdicts.most_common())
            print(
                f"{'all' if positions is None else positions:>9}{samples:>7,}"
                f"{np.mean(plug_ins):>9.3f}{np.mean(estimates):>10.3f}{error:>7.3f}"
                f"{held / repetitions:>6.2f}  {named}"
            )


if __name__ == "__main__":
    main()
