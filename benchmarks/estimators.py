"""Estimators, intervals, bounds and verdicts against entropies that are known.

Draws samples from known distributions and prints, by family, how far each estimator is off, how
often the interval that is shown holds the truth and how wide it is, how often a verdict misleads
and how often the lower bound is crossed::

    python benchmarks/estimators.py
    python benchmarks/estimators.py --repetitions 1000 --only geometric relu
    python benchmarks/estimators.py --bias --only geometric log-normal
    python benchmarks/estimators.py --mnist
    python benchmarks/estimators.py --mnist --training FOLDER_WITH_IDX_FILES

The seed is fixed. The rules were chosen on the first half of the families; the others, which were
looked at when the rules stood, confirm them (`families`). With ``--bias`` biases and errors (RMSE)
of the estimators are printed in bits instead. With ``--mnist`` the distributions are left out: what
the demo's network shows on subsets of its 10,000 images, or of MNIST's 60,000 training images, is
judged by what it shows on all (`subsets`).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from counted import GROUPS, SEED, Counted
from draws import Perceptron
from families import Family, chosen_on, held_out
from subsets import lenet

from tsstore.statistics import estimators
from tsstore.statistics.efficiency import network_interval
from tsstore.statistics.estimators import plug_in
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import (
    CONSTANT,
    IMPRECISE,
    SAMPLE_LIMITED,
    SATURATED,
    SATURATED_UP_TO,
    USABLE,
    USABLE_UP_TO,
    Close,
)

ESTIMATORS: dict[str, Callable[[Spectrum], float]] = {
    "plug-in": plug_in,
    "Miller": estimators.miller_madow,
    "Grassb.": estimators.grassberger,
    "ChaoShen": estimators.chao_shen,
    "CWJ rows": estimators.chao_wang_jost,
}

HEADINGS = {
    "family": 30,
    "bits": 8,
    "of": 4,
    "draws": 7,
    "limited": 9,
    "imprecise, held": 17,
    "held": 14,
    "width": 8,
    "rare": 8,
    "saturated, off": 16,
    "usable, off": 16,
    "bound above": 18,
}

FROM_WORST = (SAMPLE_LIMITED, CONSTANT, IMPRECISE, USABLE, SATURATED)

LEGEND = """\
limited: draws that are sample-limited; imprecise, held: those that are imprecise, or constant and
not saturated, and the share of their intervals that hold the truth. Of the draws that are usable
or better, held: the share of the shown intervals (nominally 95 %) that hold the truth, with its
standard error; width: their median width, in efficiency; rare: that of the interval which assumes
unseen states like the rare ones seen. saturated, off: plug-ins of saturated layers more than 2 %
and .005 of efficiency off; usable, off: estimates of usable ones more than 5 % and .01 off. Of all
draws, bound above: lower bounds above the truth, and their standard error."""


@dataclass
class Drawn:
    """What one draw gave: of a layer in bits, of a network in efficiency."""

    plug_in: float
    estimate: float
    lower: float
    upper: float
    width: float
    width_if_rare: float
    verdict: str
    bound: float


@dataclass
class Found:
    """What the draws of one family gave."""

    name: str
    truth: float
    neurons: int
    draws: list[Drawn] = field(default_factory=list)

    def said(self, *verdicts: str) -> list[Drawn]:
        """Return the draws with such verdicts."""
        return [one for one in self.draws if one.verdict in verdicts]

    def is_off(self, value: float, close: Close) -> bool:
        """Return whether a value is further off than one to be believed may be."""
        return abs(value - self.truth) > max(
            close.share * self.truth, close.efficiency * self.neurons
        )

    def cells(self) -> Iterator[str]:
        """Yield the cells of its line."""
        good = self.said(SATURATED, USABLE)
        held = [one.lower <= self.truth <= one.upper for one in good]
        saturated = [self.is_off(one.plug_in, SATURATED_UP_TO) for one in self.said(SATURATED)]
        usable = [self.is_off(one.estimate, USABLE_UP_TO) for one in self.said(USABLE)]
        yield from (self.name, f"{self.truth:.3f}", str(self.neurons), str(len(self.draws)))
        yield str(len(self.said(SAMPLE_LIMITED)))
        wide = [one.lower <= self.truth <= one.upper for one in self.said(IMPRECISE, CONSTANT)]
        yield f"{len(wide)}, {np.mean(wide):.3f}" if wide else "-"
        yield share(held)
        for name in ("width", "width_if_rare"):
            yield f"{np.median([getattr(one, name) for one in good]):.4f}" if good else "-"
        for off in (saturated, usable):
            yield f"{sum(off)} of {len(off):,}" if off else "-"
        # The last digits of sums do not cross a bound that is the truth, as of constant layers.
        yield share([one.bound > self.truth + 1e-9 for one in self.draws])


def share(cases: list[bool]) -> str:
    """Return a share with its standard error, which is not 0 where all cases are alike."""
    if not cases:
        return "-"
    found, shrunk = np.mean(cases), (sum(cases) + 1) / (len(cases) + 2)
    return f"{found:.3f} ± {math.sqrt(shrunk * (1 - shrunk) / len(cases)):.3f}"


def draw(family: Family, samples: int, rng) -> Counted:
    """Draw samples of a family, in random groups, and count them."""
    rows = family.draw(rng, samples=samples)
    rows, sample = rows if isinstance(rows, tuple) else (rows, None)
    return Counted.of(rows, rng.integers(0, GROUPS, samples), family.neurons, sample)


def judge(counted: Counted) -> Drawn:
    """Return what a user would be shown of a layer."""
    entropy, neurons = counted.entropy(), float(counted.neurons)
    verdict = counted.verdict(entropy).name
    shown = entropy.interval(largest=neurons)
    if_rare = entropy.interval(largest=neurons, unseen_like_rare=True)
    return Drawn(
        plug_in(counted.spectrum),
        shown.estimate,
        shown.lower,
        shown.upper,
        (shown.upper - shown.lower) / neurons,
        (if_rare.upper - if_rare.lower) / neurons,
        verdict,
        min(counted.lower_bound(), neurons),
    )


def measure(family: Family, repetitions: int, rng) -> Found:
    """Draw, count and judge."""
    found = Found(family.name, family.truth, family.neurons)
    for samples in family.sizes:
        found.draws += [judge(draw(family, samples, rng)) for _ in range(repetitions)]
    return found


def measure_network(repetitions: int, rng) -> Found:
    """Draw samples for three layers at once, and estimate the network's efficiency."""
    network = Perceptron((10, 10, 10), 8, SEED + 1)
    truth = math.prod(t / 10 for t in network.truths) ** (1 / 3)
    found = Found("network of three layers", truth, 1)
    for samples in (400, 1_600, 6_400, 25_600):
        for _ in range(repetitions):
            group = rng.integers(0, GROUPS, samples)
            layers = network.states(rng.normal(size=(samples, 1, network.inputs)))
            counted = [Counted.of(rows, group, 10) for rows in layers]
            entropies = [c.entropy() for c in counted]
            shown, if_rare = (
                network_interval(entropies, network.neurons, unseen_like_rare=rare)
                for rare in (False, True)
            )
            names = {c.verdict(e).name for c, e in zip(counted, entropies, strict=True)}
            worst = (name for name in FROM_WORST if name in names)
            found.draws.append(
                Drawn(
                    math.prod(plug_in(c.spectrum) / 10 for c in counted) ** (1 / 3),
                    shown.estimate,
                    shown.lower,
                    shown.upper,
                    shown.upper - shown.lower,
                    if_rare.upper - if_rare.lower,
                    next(worst),
                    math.prod(c.lower_bound() / 10 for c in counted) ** (1 / 3),
                )
            )
    return found


def distributions(repetitions: int, only: list[str]) -> None:
    """Measure the families, and the network, and print the table."""
    print(LEGEND)
    halves = {"Rules chosen on": list(chosen_on()), "Held out": list(held_out())}
    for half, families in halves.items():
        print(f"\n{half}")
        print_cells(HEADINGS, HEADINGS)
        for family in families:
            if chosen(family.name, only):
                rng = np.random.default_rng([SEED, *family.name.encode()])
                print_cells(measure(family, repetitions, rng).cells(), HEADINGS)
    if chosen("network of three layers", only):
        rng = np.random.default_rng([SEED, 99])
        print_cells(measure_network(repetitions, rng).cells(), HEADINGS)


def biases(repetitions: int, only: list[str]) -> None:
    """Print bias and RMSE of the estimators, and how often the verdicts are what."""
    names = [*ESTIMATORS, "default"]
    headings = {"family": 30, "bits": 8, "m": 8, **dict.fromkeys(names, 14), "width": 9}
    print("Bias and RMSE of the estimators, median width of the shown interval, all in bits")
    print_cells(headings, headings)
    for family in (f for f in (*chosen_on(), *held_out()) if chosen(f.name, only)):
        rng = np.random.default_rng([SEED, *family.name.encode()])
        for samples in family.sizes:
            values, widths = [], []
            for _ in range(repetitions):
                counted = draw(family, samples, rng)
                found = judge(counted)
                by_rows = [estimate(counted.spectrum) for estimate in ESTIMATORS.values()]
                values.append([*by_rows, found.estimate])
                widths.append(found.width * family.neurons)
            errors = np.array(values) - family.truth
            bias, rmse = errors.mean(axis=0), np.sqrt((errors**2).mean(axis=0))
            pairs = [f"{b:+.3f} {r:.3f}" for b, r in zip(bias, rmse, strict=True)]
            first = [family.name, f"{family.truth:.3f}", str(samples)]
            print_cells([*first, *pairs, f"{np.median(widths):.3f}"], headings)


def chosen(name: str, only: list[str]) -> bool:
    """Return whether a family is to be measured."""
    return not only or any(word.lower() in name.lower() for word in only)


def print_cells(cells, widths: dict[str, int]) -> None:
    """Print one line of a table; the first column is aligned to the left."""
    first, *rest = cells
    left, *others = widths.values()
    line = "".join(f"{cell:>{width}}" for cell, width in zip(rest, others, strict=True))
    print(f"{first:<{left}}{line}", flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=200, help="draws of each size")
    parser.add_argument("--only", nargs="+", default=[], help="families with such names")
    parser.add_argument("--bias", action="store_true", help="of the estimators, instead")
    parser.add_argument("--mnist", action="store_true", help="the demo's network instead")
    parser.add_argument("--training", type=Path, help="folder with MNIST's training images")
    arguments = parser.parse_args()
    if arguments.mnist:
        lenet(arguments.training)
    elif arguments.bias:
        biases(arguments.repetitions, arguments.only)
    else:
        distributions(arguments.repetitions, arguments.only)


if __name__ == "__main__":
    main()
