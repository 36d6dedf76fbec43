"""Rules of the verdict, tried side by side on small layers.

A verdict is a convention, and has to keep a promise: the estimate of a "usable" layer is more than
5 % and .01 of efficiency off in at most one of ten draws. This draws layers of 1 to 20 neurons
whose entropy is known, and prints how often each of several rules calls them usable, and how often
it is then wrong; and how often intervals hold where no more than 10 % of the rows are in states
seen once, and the interval is too wide for "usable"; then what is said of layers that showed one
state::

    python benchmarks/verdicts.py
    python benchmarks/verdicts.py --repetitions 200
    python benchmarks/verdicts.py --families
    python benchmarks/verdicts.py --rates

With ``--families`` the families of `families` are drawn instead. With ``--rates`` it prints whether
the neurons' firing rates would make intervals narrower: the sum of what each neuron may have, its
rate being off by the share of samples of a kind that was not drawn, against the upper end that is
shown. The seed is fixed.

No rule can call a neuron usable that fires in a tenth of 3,000 samples: its entropy is .469 bits
with a standard error of .0174, so that 18 % of all estimates are more than 5 % off. How often the
neuron was on is all that the samples tell (it is sufficient), and where all rates near .1 are as
likely, the estimate is as often too far off given any one count. So whichever counts a rule calls
usable, it is wrong in 18 % of them on average over these rates.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from counted import GROUPS, SEED, Counted
from draws import entropy_of, neurons
from estimators import chosen, draw, print_cells
from families import Family, chosen_on, held_out

from tsstore.statistics.estimators import plug_in
from tsstore.statistics.rates import upper_bound_from_rates
from tsstore.statistics.verdict import FEWEST_SAMPLES, UNSEEN_UP_TO

RATES = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
NEURONS = (1, 3, 10, 20)
SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000)


@dataclass
class Drawn:
    """What one draw gave, in bits; reaches are how far off the estimate may be."""

    truth: float
    neurons: int
    estimate: float
    reach: float
    reach_at_90: float
    half_width: float
    held: bool
    believable: bool

    def limit(self, share: float, efficiency: float) -> float:
        """Return the larger of a share of the estimate and of what the neurons can hold."""
        return max(share * self.estimate, efficiency * self.neurons)

    @property
    def off(self) -> bool:
        """Whether the estimate is further off than one to be believed may be."""
        return abs(self.estimate - self.truth) > max(0.05 * self.truth, 0.01 * self.neurons)


RULES: dict[str, Callable[[Drawn], bool]] = {
    "95 %: 5 % or .01": lambda d: d.reach <= d.limit(0.05, 0.01),
    "95 %: 5 % or .02": lambda d: d.reach <= d.limit(0.05, 0.02),
    "95 %: 5 % or .04": lambda d: d.reach <= d.limit(0.05, 0.04),
    "95 %: 5 % and .01, added": lambda d: d.reach <= 0.05 * d.estimate + 0.01 * d.neurons,
    "95 %: 5 % or .05 bits": lambda d: d.reach <= max(0.05 * d.estimate, 0.05),
    "95 %: half the width": lambda d: d.half_width <= d.limit(0.05, 0.01),
    "90 %: 5 % or .01": lambda d: d.reach_at_90 <= d.limit(0.05, 0.01),
    "90 %: 5 % and .01, added": lambda d: d.reach_at_90 <= 0.05 * d.estimate + 0.01 * d.neurons,
}

HEADINGS = {
    "rule": 27,
    "usable": 9,
    "off": 8,
    "worst layer": 14,
    "worst size": 14,
    "held": 8,
    "worst held": 13,
    "p = .1, 3,000": 16,
}

LEGEND = """\
usable: draws that a rule calls usable, of all; off: share of these more than 5 % and .01 of
efficiency off, in all, in the worst layer over all its sizes, and in the worst layer of one size;
held: share of their 95 % intervals that hold the truth, in all and in the worst layer of one size
(worst: of those with 30 usable draws); p = .1: usable draws of one neuron and 3,000 samples, and
how many of these are off."""


def small_layers() -> Iterator[Family]:
    """Yield layers of neurons that fire independently, or all together."""
    for number, rate in itertools.product(NEURONS, RATES):
        bits = entropy_of([rate, 1 - rate])
        alone = partial(neurons, rates=np.full(number, rate))
        yield Family(f"{number} at {rate}", number, number * bits, alone, SIZES)
        if number > 1:
            together = partial(neurons, rates=np.array([rate]))
            yield Family(f"{number} together at {rate}", number, bits, together, SIZES)


def judge(counted: Counted, truth: float) -> Drawn:
    """Return what the rules need to know of a draw."""
    entropy, most = counted.entropy(), counted.neurons
    shown = entropy.interval(largest=most)
    at_90 = entropy.interval(0.9, largest=most)
    known = entropy.missed.unseen <= UNSEEN_UP_TO and counted.samples >= FEWEST_SAMPLES
    return Drawn(
        truth,
        most,
        shown.estimate,
        max(shown.upper - shown.estimate, shown.estimate - shown.lower),
        max(at_90.upper - at_90.estimate, at_90.estimate - at_90.lower),
        (shown.upper - shown.lower) / 2,
        shown.lower <= truth <= shown.upper,
        known and entropy.scatter_known and counted.dependent_draws() is None,
    )


Cells = dict[tuple[str, int], list[Drawn]]


def measure(families: Iterable[Family], repetitions: int) -> Cells:
    """Draw each family so many times at each of its sizes."""
    found: Cells = {}
    for family in families:
        rng = np.random.default_rng([SEED, *family.name.encode()])
        for samples in family.sizes:
            found[family.name, samples] = [
                judge(draw(family, samples, rng), family.truth) for _ in range(repetitions)
            ]
    return found


def try_rules(cells: Cells) -> None:
    """Print what each rule calls usable, and how often it misleads."""
    print(LEGEND)
    print_cells(HEADINGS, HEADINGS)
    for name, rule in RULES.items():
        usable = {
            at: [d for d in all_of if d.believable and rule(d)] for at, all_of in cells.items()
        }
        layers: dict[str, list[Drawn]] = {}
        for (layer, _), drawn in usable.items():
            layers.setdefault(layer, []).extend(drawn)
        together = [d for drawn in usable.values() for d in drawn]
        named = usable.get(("1 at 0.1", 3_000), [])
        print_cells(
            [
                name,
                f"{len(together):,}",
                f"{share(together, 'off'):.3f}",
                f"{max(shares(layers.values(), 'off')):.3f}",
                f"{max(shares(usable.values(), 'off')):.3f}",
                f"{share(together, 'held'):.3f}",
                f"{min(shares(usable.values(), 'held')):.3f}",
                f"{sum(d.off for d in named)} of {len(named)}",
            ],
            HEADINGS,
        )


def share(drawn: list[Drawn], what: str) -> float:
    """Return the share of draws of which something is true."""
    return float(np.mean([getattr(d, what) for d in drawn]))


def shares(groups: Iterable[list[Drawn]], what: str) -> list[float]:
    """Return the share in each group that has 30 draws."""
    return [share(drawn, what) for drawn in groups if len(drawn) >= 30] or [float("nan")]


def too_wide(cells: Cells) -> None:
    """Print how often the interval holds where little was unseen, and it is too wide."""
    today = RULES["95 %: 5 % or .01"]
    headings = {"layer": 32, "samples": 9, "too wide": 10, "held": 8, "half width": 12}
    print("\nNo more than 10 % of the rows in states seen once, and too wide for usable")
    print_cells(headings, headings)
    together: list[Drawn] = []
    for (layer, samples), drawn in cells.items():
        wide = [d for d in drawn if d.believable and not today(d)]
        together += wide
        if len(wide) >= 30 and share(wide, "held") < 0.95:
            half = np.median([d.half_width / d.neurons for d in wide])
            held = f"{share(wide, 'held'):.3f}"
            print_cells([layer, f"{samples:,}", str(len(wide)), held, f"{half:.4f}"], headings)
    if together:
        print(f"In all {len(together):,} draws, held {share(together, 'held'):.3f};", end=" ")
        print("the lines above are those held in less than .95.")


def constant_layers() -> None:
    """Print what is said of layers all of whose samples show one state."""
    headings = {"one state": 32, "samples": 9, "verdict": 16, "at most": 10, "of efficiency": 15}
    print()
    print_cells(headings, headings)
    rng = np.random.default_rng(SEED)
    for number, samples in itertools.product((1, 32, 1_000), (16, 64, 300, 1_000, 3_000, 10_000)):
        rows = np.zeros((samples, 1), np.int64)
        counted = Counted.of(rows, rng.integers(0, GROUPS, samples), number)
        entropy = counted.entropy()
        most = entropy.interval(largest=number).upper
        name = counted.verdict(entropy).name
        shown = f"{number:,} neurons", f"{samples:,}", name, f"{most:.3f}", f"{most / number:.4f}"
        print_cells(shown, headings)


def rates_as_limits(families: Iterable[Family], repetitions: int) -> None:
    """Print upper ends of intervals, and what rates allow: medians of draws, in efficiency."""
    headings = {"family": 32, "samples": 9, "truth": 8, "plug-in": 9, "upper end": 11, "rates": 8}
    print_cells(headings, headings)
    for family in families:
        rng = np.random.default_rng([SEED, *family.name.encode()])
        for samples in family.sizes:
            found = []
            for _ in range(repetitions):
                rows = family.draw(rng, samples=samples)
                rows, sample = rows if isinstance(rows, tuple) else (rows, None)
                group = rng.integers(0, GROUPS, samples)
                counted = Counted.of(rows, group, family.neurons, sample)
                entropy = counted.entropy()
                bits = (rows.ravel()[:, None] >> np.arange(family.neurons)) & 1
                rates = bits.mean(axis=0)
                rates = np.minimum(np.minimum(rates, 1 - rates) + entropy.missed.share(0.95), 0.5)
                allowed = upper_bound_from_rates(rates)
                upper = entropy.interval(largest=family.neurons).upper
                found.append((family.truth, plug_in(counted.spectrum), upper, allowed))
            middle = np.median(found, axis=0) / family.neurons
            cells = [f"{number:.4f}" for number in middle]
            print_cells([family.name, f"{samples:,}", *cells], headings)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=60, help="draws of each size")
    parser.add_argument("--families", action="store_true", help="those of the family table instead")
    parser.add_argument("--rates", action="store_true", help="as limits of intervals, instead")
    parser.add_argument("--only", nargs="+", default=[], help="layers with such names")
    arguments = parser.parse_args()
    known = itertools.chain(chosen_on(), held_out())
    families = known if arguments.families or arguments.rates else small_layers()
    named = (family for family in families if chosen(family.name, arguments.only))
    if arguments.rates:
        rates_as_limits(named, arguments.repetitions)
    else:
        cells = measure(named, arguments.repetitions)
        try_rules(cells)
        too_wide(cells)
        constant_layers()


if __name__ == "__main__":
    main()
