"""Whether samples that are no independent draws are noticed, and independent ones left alone.

Draws from the families of `families`, and from some whose samples have states in common, counts how
often they are taken for dependent (`tsstore.statistics.independence`), then copies them, all or
some of them, and counts again::

    python benchmarks/copies.py
    python benchmarks/copies.py --repetitions 10 --only geometric alphabet

The seed is fixed. Copied sets have as many samples as those that are not, so that of four copies
there are a quarter of the samples; of partial copies the last ones are copies of the first.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator

import numpy as np
from counted import GROUPS, SEED, Counted
from draws import clumped, independent, mixed, shares_of
from families import Family, chosen_on, held_out

COPIES = (1, 2, 3, 4, 10)
SHARES = (0.1, 0.3)
MOST_SAMPLES = 10_000


def whole_documents(rng, samples, documents=5_000, power=1.0):
    """Draw documents by a power law: all states of one come together, in the same samples."""
    shares = shares_of(np.arange(1, documents + 1) ** -power)
    return rng.choice(documents, samples, p=shares)[:, None] * 1_000 + np.arange(50)


def empty_documents(rng, samples, share=0.02):
    """Draw diverse samples, some of which are the same one."""
    rows = rng.integers(0, 1 << 30, (samples, 100))
    rows[rng.random(samples) < share] = np.arange(100) + (1 << 31)
    return rows


def opposites(rng, samples, positions=40):
    """Draw positions of two states each, that go together."""
    common = rng.random((samples, 1)) < 0.3
    return 2 * np.arange(positions) + ((rng.random((samples, positions)) < 0.1) ^ common)


def templates(rng, samples, kinds=60):
    """Draw samples from templates, each with states of its own."""
    shares = np.random.default_rng(SEED).dirichlet(np.full(kinds, 0.3))
    rows = rng.integers(0, 40, (samples, 30))
    return rng.choice(kinds, samples, p=shares)[:, None] * 1_000 + rows


def in_common() -> Iterator[Family]:
    """Yield families whose samples have states in common, or nearly all states."""
    sizes = (100, 400, 2_000)
    for states in (3, 8, 30, 100):
        shares = np.random.default_rng(SEED).dirichlet(np.ones(states))
        for way, positions in ((independent, 200), (clumped, 200), (mixed, 50)):
            draw = functools.partial(way, shares=shares, positions=positions)
            yield Family(f"alphabet of {states}, {way.__name__}", 20, 0.0, draw, sizes)
    for draw in (whole_documents, empty_documents, opposites, templates):
        yield Family(draw.__name__.replace("_", " "), 40, 0.0, draw, sizes)


def noticed(family: Family, samples: int, times: int, share: float, rng) -> bool:
    """Draw samples, copy them, and return whether that is noticed."""
    own = samples // times - int(share * samples)
    rows = family.draw(rng, samples=own)
    sample = None
    if isinstance(rows, tuple):
        rows, sample = rows
    flat = np.repeat(np.arange(own), rows.shape[1]) if sample is None else sample
    rows = np.tile(rows.ravel(), times)
    flat = np.concatenate([flat + copy * own for copy in range(times)])
    if share:
        again = flat < int(share * samples)
        rows, flat = np.append(rows, rows[again]), np.append(flat, flat[again] + own)
    drawn = int(flat.max()) + 1
    counted = Counted.of(rows, rng.integers(0, GROUPS, drawn), family.neurons, flat)
    return counted.dependent_draws() is not None


def main() -> None:
    """Parse, draw, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=20, help="draws of each size")
    parser.add_argument("--only", nargs="+", default=[], help="families with such names")
    arguments = parser.parse_args()
    ways = [(times, 0.0) for times in COPIES] + [(1, share) for share in SHARES]
    names = ["as drawn", *(f"{times} copies" for times in COPIES[1:])]
    names += [f"{share:.0%} copied" for share in SHARES]
    print(f"{'taken for dependent':<30}{'m':>8}" + "".join(f"{name:>13}" for name in names))
    total = np.zeros(len(ways), int)
    families = [f for f in (*chosen_on(), *held_out(), *in_common()) if "copies" not in f.name]
    draws = 0
    for number, family in enumerate(families):
        if arguments.only and not any(word in family.name for word in arguments.only):
            continue
        for samples in (size for size in family.sizes if 64 <= size <= MOST_SAMPLES):
            rng = np.random.default_rng([SEED, number, samples])
            found = np.array(
                [
                    sum(noticed(family, samples, *way, rng) for _ in range(arguments.repetitions))
                    for way in ways
                ]
            )
            total, draws = total + found, draws + arguments.repetitions
            print(
                f"{family.name:<30}{samples:>8,}" + "".join(f"{n:>13}" for n in found), flush=True
            )
    print(f"{'all':<30}{draws:>8,}" + "".join(f"{n:>13}" for n in total))


if __name__ == "__main__":
    main()
