"""Estimators, intervals and verdicts against entropies that are known.

Draws samples from known distributions and prints how far each estimator is off, how often the
default interval holds the truth and how wide it is, and how often a verdict misleads::

    python benchmarks/estimators.py
    python benchmarks/estimators.py --repetitions 1000 --only geometric relu
    python benchmarks/estimators.py --mnist
    python benchmarks/estimators.py --mnist --training FOLDER_WITH_IDX_FILES

Entropies, biases, errors (RMSE) and widths are in bits. The seed is fixed. On the families marked
with * the estimator and the interval were chosen; the others, and the network, confirm them. Those
with † were added when the verdict's limits stood, because one of these was set after seeing the
others. With ``--mnist`` the distributions are left out: what the demo's network shows on subsets of
its 10,000 images, or of MNIST's 60,000 training images, is judged by what it shows on all
(`subsets`).
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from families import (
    GROUPS,
    SEED,
    Counted,
    Family,
    Perceptron,
    even_families,
    known_families,
    later_families,
    layer_families,
)
from subsets import lenet

from tsstore.statistics import estimators
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.intervals import Interval
from tsstore.statistics.network_intervals import network_interval
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import SAMPLE_LIMITED, SATURATED, USABLE

VERDICTS = (SATURATED, USABLE, SAMPLE_LIMITED)
ESTIMATORS: dict[str, Callable[[Spectrum], float]] = {
    "plug-in": plug_in,
    "Miller": estimators.miller_madow,
    "Grassb.": estimators.grassberger,
    "ChaoShen": estimators.chao_shen,
    "CWJ rows": estimators.chao_wang_jost,
}


@dataclass
class Found:
    """What the repetitions of one family gave, one entry each."""

    truth: float
    plug_ins: list[float] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Take over another one's entries."""
        self.plug_ins += other.plug_ins
        self.intervals += other.intervals
        self.verdicts += other.verdicts

    def coverage(self, *verdicts: str) -> tuple[int, float, float]:
        """Return how many have such a verdict, the share that hold the truth, the median width."""
        chosen = [i for i, v in zip(self.intervals, self.verdicts, strict=True) if v in verdicts]
        if not chosen:
            return 0, math.nan, math.nan
        held = np.mean([i.lower <= self.truth <= i.upper for i in chosen])
        return len(chosen), float(held), float(np.median([i.upper - i.lower for i in chosen]))

    def misled(self) -> tuple[list[bool], list[bool]]:
        """Return which saturated plug-ins are > 2 % off, and which usable estimates > 5 %."""
        pairs = list(zip(self.plug_ins, self.intervals, self.verdicts, strict=True))
        plug_ins = [abs(p / self.truth - 1) > 0.02 for p, _, v in pairs if v == SATURATED]
        estimates = [abs(i.estimate / self.truth - 1) > 0.05 for _, i, v in pairs if v == USABLE]
        return plug_ins, estimates


def measure(family: Family, samples: int, repetitions: int, rng) -> tuple[Found, list[str]]:
    """Draw, count and estimate; return what was found and the line of the table."""
    found, values = Found(family.truth), []
    for _ in range(repetitions):
        rows = family.draw(rng, samples=samples)
        counted = Counted.of(rows, rng.integers(0, GROUPS, samples))
        entropy = counted.entropy()
        values.append([e(counted.spectrum) for e in ESTIMATORS.values()] + [entropy.estimate])
        found.plug_ins.append(values[-1][0])
        found.intervals.append(entropy.interval())
        found.verdicts.append(counted.verdict(entropy))
    errors = np.array(values) - family.truth
    bias, rmse = errors.mean(axis=0), np.sqrt((errors**2).mean(axis=0))
    pairs = [f"{b:+.3f} {r:.3f}" for b, r in zip(bias, rmse, strict=True)]
    _, held, width = found.coverage(*VERDICTS)
    named = [str(found.verdicts.count(name)) for name in VERDICTS]
    return found, [*pairs, f"{held:.3f}", f"{width:.3f}", "/".join(named)]


def measure_network(repetitions: int, rng) -> Found:
    """Draw samples for three layers at once, and estimate the network's efficiency."""
    network = Perceptron((10, 10, 10), 8, SEED + 1)
    truth = math.prod(t / 10 for t in network.truths) ** (1 / 3)
    found = Found(truth)
    for samples in (400, 1_600, 6_400):
        for _ in range(repetitions):
            group = rng.integers(0, GROUPS, samples)
            layers = network.states(rng.normal(size=(samples, 1, network.inputs)))
            counted = [Counted.of(rows, group) for rows in layers]
            entropies = [c.entropy() for c in counted]
            found.intervals.append(network_interval(entropies, network.neurons))
            found.plug_ins.append(math.prod(plug_in(c.spectrum) / 10 for c in counted) ** (1 / 3))
            names = {c.verdict(e) for c, e in zip(counted, entropies, strict=True)}
            worst = (name for name in (SAMPLE_LIMITED, USABLE, SATURATED) if name in names)
            found.verdicts.append(next(worst))
    return found


def print_line(name: str, cells: list[str], widths: tuple[int, ...]) -> None:
    """Print one line of a table."""
    print(f"{name:<26}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)))


def print_summary(found: dict[str, Found]) -> None:
    """Print coverage where the verdict is usable or better, and how often verdicts mislead."""
    widths = (7, 11, 13, 22, 22)
    print("\nInterval (nominal 95 %) where usable or better, and how often a verdict misleads")
    headings = ["draws", "coverage", "med. width", "saturated, > 2 % off", "usable, > 5 % off"]
    print_line("family", headings, widths)
    rows = [(name, [f]) for name, f in found.items()]
    rows.append(("pooled", list(found.values())))
    rows.append(("pooled, not chosen on", [f for name, f in found.items() if "*" not in name]))
    rows.append(("pooled, added later", [f for name, f in found.items() if "†" in name]))
    for name, parts in rows:
        covered = [part.coverage(SATURATED, USABLE) for part in parts]
        draws = sum(c[0] for c in covered)
        held = sum(c[0] * c[1] for c in covered if c[0]) / draws if draws else math.nan
        width = f"{covered[0][2]:.3f}" if len(parts) == 1 else ""
        misled = zip(*(p.misled() for p in parts), strict=True)
        shares = [f"{sum(m)} of {len(m)}" for m in (list(itertools.chain(*m)) for m in misled)]
        print_line(name, [str(draws), f"{held:.3f}", width, *shares], widths)


def distributions(repetitions: int, only: list[str]) -> None:
    """Measure the families, and the network, and print the tables."""
    families = [*known_families(), *layer_families(), *later_families(), *even_families()]
    chosen = [f for f in families if not only or any(w.lower() in f.name.lower() for w in only)]
    names = [*ESTIMATORS, "CWJ samples"]
    widths = (7, 7, *[14] * len(names), 9, 8, 14)
    print("Bias and RMSE of the estimators; the interval's coverage and width; verdicts")
    headings = ["bits", "m", *names, "covered", "width", "sat/usable/lim"]
    print_line("family", headings, widths)
    found: dict[str, Found] = {}
    for number, family in enumerate(chosen):
        rng = np.random.default_rng([SEED, number])
        for samples in family.sizes:
            part, cells = measure(family, samples, repetitions, rng)
            print_line(family.name, [f"{family.truth:.3f}", str(samples), *cells], widths)
            found.setdefault(family.name, Found(family.truth)).add(part)
    if not only or "network" in only:
        found["network of three layers"] = measure_network(
            repetitions, np.random.default_rng([SEED, 99])
        )
    print_summary(found)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=200, help="draws of each size")
    parser.add_argument("--only", nargs="+", default=[], help="families with such names")
    parser.add_argument("--mnist", action="store_true", help="the demo's network instead")
    parser.add_argument("--training", type=Path, help="folder with MNIST's training images")
    arguments = parser.parse_args()
    if arguments.mnist:
        lenet(arguments.training)
    else:
        distributions(arguments.repetitions, arguments.only)


if __name__ == "__main__":
    main()
