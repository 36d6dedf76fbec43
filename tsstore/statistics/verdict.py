"""Whether there were enough samples to tell a layer's entropy.

*How many samples will be needed* is told by how the numbers that decide change with the number of
samples m, here and now, and by taking that for a power of m. The share u of the rows in states seen
in one sample only loses, with each sample more, the states that this sample shows again: with M1
and M2 rows in states of one and of two samples, u falls like m**-(M2 / M1). What the plug-in lacks
falls like m**-c with c = sum (k / n) (1 + (q - 1) ln(1 - 1 / q)) over what it lacks, in nats: the
numerator is what m times the last sample added to it, and is the correction that the jackknife over
samples would make. A standard error falls like m**-(1 / 2). Where a layer has but so many states,
all of them fall faster than that, and more samples are asked for than it will take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tsstore.statistics.clusters import rows_in_single_clusters
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.numerics import jackknife_correction
from tsstore.statistics.spectrum import Spectrum

SATURATED = "saturated"
USABLE = "usable"
SAMPLE_LIMITED = "sample-limited"

FEWEST_SAMPLES = 64
"""With fewer samples no layer is more than sample-limited."""

FARTHEST = 3
"""How many times the samples there are a forecast of the samples needed may reach."""


class Shares(NamedTuple):
    """The three shares that decide, as they are or as they may at most be.

    Attributes
    ----------
    unseen
        Of the rows, those in states seen in one sample, or one cluster of samples, only.
    shortfall
        Of the estimated entropy, what the plug-in lacks.
    margin
        Of the estimated entropy, its 95 % margin.
    """

    unseen: float
    shortfall: float
    margin: float


SATURATED_UP_TO = Shares(unseen=0.02, shortfall=0.02, margin=0.02)
USABLE_UP_TO = Shares(unseen=0.10, shortfall=0.05, margin=0.05)

PLUG_IN_OFF_UP_TO = 0.02
"""So much a saturated layer's shortfall and margin may come to together: by so much the plug-in is
off if the entropy is at the end of the margin."""


@dataclass(frozen=True)
class Verdict:
    """What the samples are enough for.

    Attributes
    ----------
    name
        "saturated": plug-in and estimate can both be believed; "usable": the estimate can;
        "sample-limited": neither can.
    reason
        One sentence, which names the condition that keeps the layer from a better verdict.
    samples_needed
        About how many samples would make the layer usable: those that there are if it is; None if
        that is more than three times what there is.
    """

    name: str
    reason: str
    samples_needed: int | None


def verdict(
    spectrum: Spectrum,
    samples: int,
    estimate: float,
    margin: float | None = None,
    clusters: int | None = None,
    changes: GroupChanges | None = None,
    doubts: Sequence[str] = (),
) -> Verdict:
    """Say whether there were enough samples to tell a layer's entropy, and why.

    Parameters
    ----------
    spectrum
        What was counted, with incidences.
    samples
        How many samples were counted.
    estimate
        The estimated entropy, in bits.
    margin
        How far a 95 % confidence interval reaches for the scatter of the estimate, in bits;
        infinite where there are too few groups of samples to tell. None where it was not computed:
        what it would decide is then left out, and the reason says so.
    clusters
        How many clusters there are, samples of one of which depend on each other: the fewest
        samples are then asked of them. None where each sample is on its own.
    changes
        What leaving groups of whole clusters out changes: a state that one cluster alone has shown
        is then as rare as one that a single sample has shown.
    doubts
        What speaks against the samples as draws, in words, the gravest first: whatever they show,
        the layer is then sample-limited, and how many samples it needs is not told.

    Raises
    ------
    ValueError
        If the spectrum has no rows.

    Notes
    -----
    The share of rows in states of a single sample estimates how likely a row of a new sample is
    to be in a state never seen (Good 1953, with samples in the place of rows). The limits are a
    convention; `benchmarks/estimators.py` counts how often they mislead.
    """
    if spectrum.rows == 0:
        raise ValueError("a verdict needs at least one row: there are no rows")
    if doubts:
        return Verdict(SAMPLE_LIMITED, f"The samples are no independent draws: {doubts[0]}.", None)
    clustered = None if clusters is None else changes
    found = _shares(spectrum, estimate, margin or 0.0, clustered)
    few = _too_few(samples, clusters)
    only = "one sample" if clustered is None else "one sample or cluster"
    if failure := few or _first_failure(found, USABLE_UP_TO, only):
        needed = _samples_needed(spectrum, samples, estimate, found, clusters)
        return Verdict(SAMPLE_LIMITED, _reason("More samples are needed", failure, margin), needed)
    if failure := _first_failure(found, SATURATED_UP_TO, only) or _plug_in_off(found):
        enough = "Enough for the estimate, not for the plug-in"
        return Verdict(USABLE, _reason(enough, failure, margin), samples)
    evidence = (
        f"{_percent(found.unseen)} of the rows are in states seen in {only} only, and the "
        f"plug-in is {_percent(found.shortfall)} below the estimate"
    )
    return Verdict(SATURATED, _reason("Enough even for the plug-in", evidence, margin), samples)


def _shares(
    spectrum: Spectrum, estimate: float, margin: float, clustered: GroupChanges | None
) -> Shares:
    rare = spectrum.rows_in_single_samples
    if clustered is not None:
        rare = rows_in_single_clusters(spectrum, clustered)
    unseen = rare / spectrum.rows
    if estimate <= 0:
        return Shares(unseen, 0.0, math.inf if margin > 0 else 0.0)
    return Shares(unseen, max(0.0, 1 - plug_in(spectrum) / estimate), margin / estimate)


def _too_few(samples: int, clusters: int | None) -> str | None:
    if samples < FEWEST_SAMPLES:
        return f"there are {samples} samples (fewer than {FEWEST_SAMPLES})"
    if clusters is not None and clusters < FEWEST_SAMPLES:
        return f"there are {clusters} clusters of samples (fewer than {FEWEST_SAMPLES})"
    return None


def _first_failure(found: Shares, limits: Shares, only: str) -> str | None:
    """Return the first condition that does not hold, in words."""
    if found.unseen > limits.unseen:
        share = _percent(found.unseen)
        return f"{share} of the rows are in states seen in {only} only{_over(limits.unseen)}"
    if found.shortfall > limits.shortfall:
        return f"the plug-in is {_percent(found.shortfall)} below the estimate" + _over(
            limits.shortfall
        )
    if found.margin == math.inf:
        return "fewer than two groups of samples leave open how much the estimate scatters"
    if found.margin > limits.margin:
        return f"the estimate is known to ± {_percent(found.margin)} only{_over(limits.margin)}"
    return None


def _plug_in_off(found: Shares) -> str | None:
    """Return in words that the plug-in may be off by too much, if it may."""
    if found.shortfall + found.margin <= PLUG_IN_OFF_UP_TO:
        return None
    shortfall, margin = _percent(found.shortfall), _percent(found.margin)
    return (
        f"the plug-in is {shortfall} below an estimate known to ± {margin}, together more than "
        f"{100 * PLUG_IN_OFF_UP_TO:.0f} %"
    )


def _samples_needed(
    spectrum: Spectrum, samples: int, estimate: float, found: Shares, clusters: int | None
) -> int | None:
    limits = USABLE_UP_TO
    if clusters is not None and found.unseen > limits.unseen:
        return None  # Only more clusters help, and how many is not known.
    growth = max(
        FEWEST_SAMPLES / (clusters or samples),
        _growth(found.unseen, limits.unseen, _unseen_power(spectrum)),
        _growth(found.shortfall, limits.shortfall, _shortfall_power(spectrum, samples, estimate)),
        _growth(found.margin, limits.margin, 0.5),
    )
    return math.ceil(growth * samples) if growth <= FARTHEST else None


def _growth(found: float, limit: float, power: float) -> float:
    """Return how many times the samples bring what falls like their power down to the limit."""
    if found <= limit:
        return 1.0
    if power <= 0 or math.log(found / limit) > power * math.log(FARTHEST + 1):
        return math.inf
    return math.exp(math.log(found / limit) / power)


def _unseen_power(spectrum: Spectrum) -> float:
    twice = spectrum.incidence == 2
    rows_in_two = int(spectrum.multiplicity[twice] @ spectrum.states[twice])
    once = spectrum.rows_in_single_samples
    return rows_in_two / once if once else math.inf


def _shortfall_power(spectrum: Spectrum, samples: int, estimate: float) -> float:
    """Return the power, at most 1: an estimate that is too low would make it larger."""
    lacking = (estimate - plug_in(spectrum)) * math.log(2)
    weights = spectrum.states * (spectrum.multiplicity / spectrum.rows)
    gained = float(weights @ jackknife_correction(spectrum.incidence))
    gained -= float(jackknife_correction(samples))
    return min(1.0, gained / lacking) if lacking > 0 else 1.0


def _reason(what: str, why: str, margin: float | None) -> str:
    unknown = "; how much the estimate scatters was not computed" if margin is None else ""
    return f"{what}: {why}{unknown}."


def _over(limit: float) -> str:
    return f" (more than {100 * limit:.0f} %)"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
