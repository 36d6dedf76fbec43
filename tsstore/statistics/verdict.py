"""Whether there were enough samples to tell a layer's entropy.

The interval that is shown tells (`intervals`): a layer is saturated if whatever the interval holds
is close to the plug-in, and usable if it is close to the estimate. Close is relative to the
estimate, or, for layers of little entropy, to what the neurons can hold. Near the limit it is the
layers whose standard error came out small by chance that would pass for saturated; for the plug-in
the error is therefore taken at its own upper limit.

Where the interval is wider than that, it holds all the same, as long as nearly all rows are in
states of several samples: the layer is imprecise. No looser rule makes it usable, since estimates
would then be too far off more often than one in ten is (`benchmarks/verdicts.py`). Of a layer that
showed a single state the estimate is 0, and all there is to tell is how much states not seen may
add: it is constant, until that is too little to matter. Else the samples limit what can be said to
a lower bound.

*How many samples will be needed* is told by how the parts of the interval change with the number of
samples m. The share u of the rows in states seen in one sample only loses, with each sample more,
the states that this sample shows again: with M1 and M2 rows in states of one and of two samples, u
falls like m**-(M2 / M1), here and now, and so does what unseen states may hold. A standard error
falls like m**-(1 / 2), the share of kinds of samples that were missed like 1 / m. Where a layer has
but so many states, u falls faster than that, and more samples are asked for than it will take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tsstore.statistics.estimators import plug_in
from tsstore.statistics.intervals import Jackknifed, Reach
from tsstore.statistics.spectrum import Spectrum
from tsstore.text import counted

SATURATED = "saturated"
USABLE = "usable"
IMPRECISE = "imprecise"
CONSTANT = "constant"
SAMPLE_LIMITED = "sample-limited"

FEWEST_SAMPLES = 64
"""With fewer samples no layer is more than sample-limited."""

UNSEEN_UP_TO = 0.10
"""So large a share of the rows of a usable layer may be in states seen in one sample only."""

FARTHEST = 3
"""How many times the samples there are a forecast of the samples needed may reach."""


class Close(NamedTuple):
    """How far off a number may be that is to be believed: as far as the larger of the two.

    A share of the estimated entropy, and one of what the neurons can hold.
    """

    share: float
    efficiency: float

    def __str__(self) -> str:
        return f"{100 * self.share:.0f} % and {self.efficiency:g} of efficiency"


SATURATED_UP_TO = Close(0.02, 0.005)
USABLE_UP_TO = Close(0.05, 0.01)


@dataclass(frozen=True)
class Verdict:
    """What the samples are enough for.

    Attributes
    ----------
    name
        "saturated": interval, estimate and plug-in can all be believed; "usable": interval and
        estimate can; "imprecise", "constant": the interval can; "sample-limited": none can.
    reason
        One sentence, which names what keeps the layer from a better verdict.
    samples_needed
        About how many samples would make the layer usable: those that there are if it is; None if
        that is more than three times what there is, or more samples alone would not do.
    needs
        What the layer needs to be usable, in words; empty if it is.
    """

    name: str
    reason: str
    samples_needed: int | None
    needs: str = ""


def verdict(
    spectrum: Spectrum,
    samples: int,
    entropy: Jackknifed,
    neurons: int,
    *,
    clusters: int | None = None,
    doubts: Sequence[str] = (),
) -> Verdict:
    """Say whether there were enough samples to tell a layer's entropy, and why.

    Parameters are as of `intervals.jackknifed_entropy`, and the entropy is what that gives. Where
    there are clusters, the fewest samples are asked of them; where groups were not told apart, what
    scatter would decide is left out, and the reason says so. Doubts speak against the samples as
    draws, the gravest first: whatever they show, the layer is then sample-limited, and how many
    samples it needs is not told. ValueError if the spectrum has no rows.

    The limits are a convention; `benchmarks/estimators.py` counts how often they mislead.
    """
    if spectrum.rows == 0:
        raise ValueError("a verdict needs at least one row: there are no rows")
    if doubts:
        reason = f"The samples are no independent draws: {doubts[0]}."
        return Verdict(SAMPLE_LIMITED, reason, None, "independent samples")
    shown = min(samples, spectrum.rows)  # Samples without rows have shown nothing.
    found = _Found.by(entropy, neurons)
    words = _Words(spectrum, shown, found, told=entropy.groups > 1)
    few = _too_few(shown, clusters) or _too_much_unseen(found, clusters)
    if few or found.off > found.limit(USABLE_UP_TO):
        needed = _samples_needed(spectrum, samples, found, clusters)
        name = _short_of_usable(spectrum, entropy, few)
        imprecise = "Enough for the interval, not for the estimate"
        what = imprecise if name == IMPRECISE else "More samples are needed"
        reason = words.reason(what, few or words.too_far())
        return Verdict(name, reason, needed, _needs(needed, samples, clusters))
    plug_in_off = found.off_from(plug_in(spectrum), wider=True)
    if plug_in_off > found.limit(SATURATED_UP_TO):
        why = f"the plug-in may be off by {words.amount(plug_in_off)}, more than {SATURATED_UP_TO}"
        reason = words.reason("Enough for the estimate, not for the plug-in", why)
        return Verdict(USABLE, reason, samples)
    why = f"the plug-in is off by at most {words.amount(plug_in_off)}"
    return Verdict(SATURATED, words.reason("Enough even for the plug-in", why), samples)


@dataclass(frozen=True)
class _Found:
    """What decides, in bits but for the unseen share of the rows.

    The margin is that for scatter, and may have come out so many times too small by chance.
    """

    neurons: int
    estimate: float
    unseen: float
    reach: Reach
    margin: float
    too_small: float

    @classmethod
    def by(cls, entropy: Jackknifed, neurons: int) -> _Found:
        unseen = entropy.missed.unseen if entropy.missed else 0.0
        margin = entropy.margin() if entropy.groups > 1 else 0.0
        estimate = min(max(entropy.estimate, 0.0), float(neurons))
        too_small = error_of_errors(entropy.groups)
        return cls(neurons, estimate, unseen, entropy.reach(), margin, too_small)

    @property
    def off(self) -> float:
        """How far off the estimate may be."""
        return self.off_from(self.estimate)

    def off_from(self, value: float, wider: bool = False) -> float:
        """Return how far from a value the entropy may be; wider: however the margin came out."""
        lower, upper = self.reach.ends(self.margin * (self.too_small if wider else 1))
        return max(min(upper, self.neurons) - value, value - max(lower, 0.0))

    def limit(self, close: Close) -> float:
        """Return how far from a value it may be at most, for that value to be close."""
        return max(close.share * self.estimate, close.efficiency * self.neurons)

    def after(self, growth: float, power: float) -> _Found:
        """Return what so many times the samples would find; power is that of the unseen share."""
        unseen, missed = growth**-power, 1 / growth
        lowest = self.estimate - (self.estimate - self.reach.lowest) * unseen
        highest = self.estimate + (self.reach.highest - self.estimate) * unseen
        least = lowest - (self.reach.lowest - self.reach.least) * missed
        most = highest + (self.reach.most - self.reach.highest) * missed
        reach = Reach(lowest, highest, least, most)
        return replace(
            self, unseen=self.unseen * unseen, reach=reach, margin=self.margin * growth**-0.5
        )


@dataclass(frozen=True)
class _Words:
    """How a reason says what was found; told: whether groups of samples were told apart."""

    spectrum: Spectrum
    samples: int
    found: _Found
    told: bool

    def reason(self, what: str, why: str) -> str:
        """Return the sentence."""
        unknown = "" if self.told else "; how much the estimate scatters was not computed"
        if self.spectrum.distinct == 1:
            most = self.amount(self.found.off)
            what = f"Constant: one state in {counted(self.samples, 'sample')}"
            return f"{what}; states that were not seen may add up to {most}{unknown}."
        return f"{what}: {why}{unknown}."

    def too_far(self) -> str:
        """Return by how much the estimate may be off, and what for."""
        found = self.found
        amount, limit = self.amount(found.off), USABLE_UP_TO
        missed = max(found.reach.most - found.estimate, found.estimate - found.reach.least)
        if missed > found.margin:
            return f"with what was not seen the estimate may be off by {amount}, more than {limit}"
        return f"the estimate is known to ± {amount} only, more than {limit}"

    def amount(self, bits: float) -> str:
        """Return an amount of entropy in words."""
        if self.found.estimate > bits:
            return f"{bits:.3g} bits ({100 * bits / self.found.estimate:.3g} %)"
        return f"{bits:.3g} bits ({bits / self.found.neurons:.3g} of efficiency)"


def error_of_errors(groups: int) -> float:
    """Return how many times too small, at most, a standard error by so many groups has come out.

    It is the upper limit at 90 %: errors that came out small by chance must not make a layer look
    saturated. From a single group there is no error, and nothing to be mended.
    """
    from scipy.special import gammaincinv

    degrees = groups - 1
    return math.sqrt(degrees / (2 * gammaincinv(degrees / 2, 0.1))) if degrees > 0 else 1.0


def _too_few(samples: int, clusters: int | None) -> str:
    for number, thing in ((samples, "sample"), (clusters, "cluster")):
        if number is not None and number < FEWEST_SAMPLES:
            there = "is" if number == 1 else "are"
            of_samples = " of samples" * (thing == "cluster")
            return (
                f"there {there} {counted(number, thing)}{of_samples} (fewer than {FEWEST_SAMPLES})"
            )
    return ""


def _too_much_unseen(found: _Found, clusters: int | None) -> str:
    if found.unseen <= UNSEEN_UP_TO:
        return ""
    only = "one sample" if clusters is None else "one sample or cluster"
    share, limit = f"{100 * found.unseen:.1f} %", f"{100 * UNSEEN_UP_TO:.0f} %"
    return f"{share} of the rows are in states seen in {only} only (more than {limit})"


def _short_of_usable(spectrum: Spectrum, entropy: Jackknifed, few: str) -> str:
    """Return the verdict of a layer whose estimate cannot be believed."""
    if not entropy.scatter_known:
        return SAMPLE_LIMITED
    if spectrum.distinct == 1:
        return CONSTANT
    return SAMPLE_LIMITED if few else IMPRECISE


def _samples_needed(
    spectrum: Spectrum, samples: int, found: _Found, clusters: int | None
) -> int | None:
    if clusters is not None and found.unseen > UNSEEN_UP_TO:
        return None  # Only more clusters help, and how many is not known.
    power = _unseen_power(spectrum)
    for growth in (1 + step / 100 for step in range(100 * (FARTHEST - 1) + 1)):
        later = found.after(growth, power)
        many = growth * min(clusters or samples, spectrum.rows) >= FEWEST_SAMPLES
        enough = many and later.unseen <= UNSEEN_UP_TO
        if enough and later.off <= later.limit(USABLE_UP_TO):
            return math.ceil(growth * samples)
    return None


def _unseen_power(spectrum: Spectrum) -> float:
    """Return the power of the samples with which the unseen share falls."""
    twice = spectrum.incidence == 2
    rows_in_two = int(spectrum.multiplicity[twice] @ spectrum.states[twice])
    once = spectrum.rows_in_single_samples
    return rows_in_two / once if once else 1.0


def _needs(needed: int | None, samples: int, clusters: int | None) -> str:
    """Return what a layer needs, in two digits: a forecast has no more."""
    if needed is None and clusters is not None:
        return f"more than the {counted(clusters, 'cluster')} there are"
    if needed is None:
        return f"more than {FARTHEST * samples:,} samples"
    unit = 10 ** max(len(str(needed)) - 2, 0)
    return f"about {-(-needed // unit) * unit:,} samples"
