"""What was found in one layer: numbers, a line of a table, a JSON document."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import Any

from tsstore.analysis.results.estimates import (
    PER_SAMPLE,
    PLUG_IN,
    SAMPLE_BASED,
    LayerCounts,
    Rarefied,
    curve_sizes,
    entropy_by_rows,
    lower_bound,
    rarefied,
    seen_once_error,
)
from tsstore.statistics.efficiency import efficiency
from tsstore.statistics.estimators import ESTIMATORS
from tsstore.statistics.intervals import Interval, Jackknifed
from tsstore.statistics.richness import Richness, chao, coverage, coverage_interval, states_of
from tsstore.statistics.special import check_level
from tsstore.statistics.verdict import SAMPLE_LIMITED
from tsstore.text import printable

HEADINGS = ("layer", "neurons", "samples", "distinct", "efficiency", "verdict")
VERBOSE_HEADINGS = (*HEADINGS[:3], "rows", *HEADINGS[3:5], "plug-in", "cap", HEADINGS[5])

FIRST_COLUMNS = (
    "neurons",
    "samples",
    "distinct",
    "efficiency",
    "efficiency_interval_lower",
    "efficiency_interval_upper",
    "efficiency_lower_bound",
    "verdict",
    "entropy_bits",
    "coverage",
)
"""Of a table of layers: what a paper's table is made of."""

_PER_SAMPLE = "a per-sample target: samples of different length weigh the same"


class LayerResult(LayerCounts):
    """What was counted in one layer, and the numbers that follow from it; made by `analyze`."""

    def entropy(self, estimator: str = SAMPLE_BASED, alpha: float = 1.0) -> float:
        """Return an estimate of the layer's entropy, in bits: at most one for each neuron.

        Parameters
        ----------
        estimator
            ``"sample-based"`` takes samples for what was drawn (`statistics.sample_estimator`). The
            others take each row for a draw of its own: ``"plug-in"``, ``"miller-madow"`` and what
            else `statistics.estimators.ESTIMATORS` names, and ``"unbiased"``.
        alpha
            Order of Rényi's entropy, from 0 to infinity; 1 is Shannon's. Of other orders there is
            the plug-in, and of whole orders from 2 up ``"unbiased"``.

        Raises
        ------
        AnalysisError
            If there is no such estimator, or not of this order, or it cannot tell: the unbiased one
            needs a state with as many rows as the order says.
        ValueError
            If alpha is negative or NaN.
        """
        if estimator == SAMPLE_BASED and alpha == 1:
            return min(self.estimated.estimate, float(self.neurons))
        return min(entropy_by_rows(self.spectrum, estimator, alpha), float(self.neurons))

    def efficiency(self, estimator: str = SAMPLE_BASED) -> float:
        """Return an estimate of the entropy by the neurons; raises as `entropy`."""
        return efficiency(self.entropy(estimator), self.neurons)

    def interval(self, level: float = 0.95, *, unseen_like_rare: bool = False) -> Interval | None:
        """Return a confidence interval for the entropy, in bits, about the default estimate.

        Parameters
        ----------
        level
            Nominal confidence, between 0 and 1.
        unseen_like_rare
            Assume that states not seen are about as rare as those seen once or twice, and that no
            kind of samples was missed: the interval is then narrower. It is wrong where a small
            part of the rows is very diverse, as rare classes and inputs of another kind may be.

        Returns
        -------
        Interval or None
            None if groups of samples were not told apart, fewer than five of them hold samples, or
            no state was seen in two samples. Its lower end is of no use for a sample-limited layer,
            which has `entropy_lower_bound`. ValueError if level is not between 0 and 1.
        """
        check_level(level)
        if self.jackknifed is None:
            return None
        most = float(self.neurons)
        return self.jackknifed.interval(level, most, unseen_like_rare=unseen_like_rare)

    def efficiency_interval(
        self, level: float = 0.95, *, unseen_like_rare: bool = False
    ) -> Interval | None:
        """Return a confidence interval for the efficiency; all as `interval`."""
        bits = self.interval(level, unseen_like_rare=unseen_like_rare)
        if bits is None:
            return None
        names = ("estimate", "lower", "upper", "standard_error")
        return replace(bits, **{name: getattr(bits, name) / self.neurons for name in names})

    @property
    def jackknifed(self) -> Jackknifed | None:
        """The default estimate, and those without each group of samples; None as `interval`."""
        return self.estimated if self.estimated.scatter_known else None

    @property
    def margin(self) -> float | None:
        """How far a 95 % interval reaches for the scatter alone, in bits; None as `interval`."""
        return None if self.jackknifed is None else self.jackknifed.margin()

    @cached_property
    def entropy_lower_bound(self) -> float:
        """Bits that the layer's entropy exceeds with 95 % confidence, however few the samples."""
        return min(lower_bound(self), float(self.neurons))

    @property
    def efficiency_lower_bound(self) -> float:
        """The lower bound of the entropy by the neurons."""
        return efficiency(self.entropy_lower_bound, self.neurons)

    @property
    def coverage(self) -> float | None:
        """Share of a new sample's states that were seen; None if there is one sample."""
        return coverage(self.spectrum, self.samples)

    def richness(self, level: float = 0.95) -> Richness:
        """Return how many states there are at least, with those never seen (Chao2)."""
        return chao(self.spectrum, self.samples, states_of(self.neurons), level)

    def coverage_interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Return a confidence interval for the coverage; None if there is one sample."""
        return coverage_interval(self.spectrum, level, self.samples, seen_once_error(self))

    def rarefied(self, samples: int, level: float = 0.95) -> Rarefied:
        """Return what fewer samples would have shown: compare layers and runs at equal numbers.

        With intervals where groups of samples were told apart. AnalysisError if there are not so
        many samples; ValueError if level is not between 0 and 1.
        """
        return rarefied(self, [samples], level)[0]

    def rarefaction_curve(self, points: int = 30, level: float = 0.95) -> list[Rarefied]:
        """Return what 1 to all samples show, at some numbers of them; raises as `rarefied`."""
        return rarefied(self, curve_sizes(self.samples, points), level)

    def plot_curve(self, ax: Any = None) -> Any:
        """Draw how many states fewer samples show, with the 95 % band; as `Analysis.plot`."""
        from tsstore.analysis.results.plots import plot_curve, short

        title = f"{short(self.name)}: {self.verdict}"
        return plot_curve(self.rarefaction_curve(), title, self.samples_needed, ax)

    def plot_spectrum(self, ax: Any = None) -> Any:
        """Draw how many states were seen in so many samples; as `Analysis.plot`."""
        from tsstore.analysis.results.plots import plot_spectrum, short

        return plot_spectrum(self.spectrum, short(self.name), ax)

    @property
    def verdict(self) -> str:
        """``saturated``, ``usable``, ``imprecise``, ``constant`` or ``sample-limited``."""
        return self.judged.name

    @property
    def reason(self) -> str:
        """The verdict's reason, in one sentence."""
        return self.judged.reason

    @property
    def samples_needed(self) -> int | None:
        """About how many samples make the layer usable; None if more than 3 times these."""
        return self.judged.samples_needed

    @property
    def needs(self) -> str:
        """What the layer needs to be usable, in words; empty if it is."""
        return self.judged.needs

    @property
    def sample_limited(self) -> bool:
        """Whether the samples are too few even for an interval: there is a lower bound alone."""
        return self.verdict == SAMPLE_LIMITED

    @property
    def shown_efficiency(self) -> float:
        """The default estimate, or the lower bound where the layer is sample-limited."""
        return self.efficiency_lower_bound if self.sample_limited else self.efficiency()

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them: None for the infinite, too."""
        return layer_document(self)

    def __repr__(self) -> str:
        sampled = sampling_text(self)
        return (
            f"<LayerResult {printable(self.name)}: {self.neurons:,} neurons, "
            f"{self.samples:,} samples, {self.distinct:,} distinct states, "
            f"efficiency {efficiency_text(self)}, {self.verdict}>\n  {self.reason}"
            f"{sampled and f' ({sampled})'}"
        )


def layer_document(layer: LayerResult) -> dict[str, Any]:
    """Return a layer's numbers; None stands for what there is not, and for the infinite."""
    states = layer.richness()
    by_rows = {name: layer.entropy(name) for name in ESTIMATORS}
    return {
        "rows": layer.rows,
        "samples": layer.samples,
        "clusters": layer.clusters,
        "distinct": layer.distinct,
        "neurons": layer.neurons,
        "entropy_bits": layer.entropy(),
        "entropy_interval_bits": interval_document(layer.interval()),
        "entropy_interval_unseen_like_rare_bits": interval_document(
            layer.interval(unseen_like_rare=True)
        ),
        "entropy_lower_bound_bits": layer.entropy_lower_bound,
        "entropy_plug_in_bits": by_rows[PLUG_IN],
        "entropy_by_rows_bits": by_rows,
        "max_entropy_bits": layer.max_entropy,
        "cap_bits": layer.cap,
        "efficiency": layer.efficiency(),
        "efficiency_interval": interval_document(layer.efficiency_interval()),
        "efficiency_lower_bound": layer.efficiency_lower_bound,
        "efficiency_plug_in": efficiency(by_rows[PLUG_IN], layer.neurons),
        "verdict": layer.verdict,
        "reason": layer.reason,
        "samples_needed": layer.samples_needed,
        "needs": layer.needs,
        "margin_bits": _finite(layer.margin),
        "rows_in_single_samples": layer.spectrum.rows_in_single_samples,
        "coverage": layer.coverage,
        "richness": states.estimate,
        "richness_interval": interval_document(states),
        "collision_bound": layer.collision_bound,
        "threshold": layer.threshold,
        "target": layer.target,
        "sampling": None if layer.sampling is None else dict(layer.sampling),
    }


def table_row(layer: LayerResult) -> dict[str, Any]:
    """Return a layer's numbers for a line of a table: of intervals the two ends, or NaN."""
    document = layer_document(layer)
    del document["entropy_by_rows_bits"]
    row: dict[str, Any] = {}
    for name, value in document.items():
        if "_interval" not in name:
            row[name] = value
        else:
            # A column of numbers stays one where no layer has an interval.
            ends = {end: (value or {}).get(end) for end in ("lower", "upper")}
            row |= {f"{name}_{end}": math.nan if v is None else v for end, v in ends.items()}
    return {name: row[name] for name in dict.fromkeys([*FIRST_COLUMNS, *row])}


def interval_document(interval: Interval | Richness | None) -> dict[str, float | None] | None:
    """Return the ends of an interval and its standard error; None where there is none."""
    if interval is None:
        return None
    names = ("lower", "upper", "standard_error")
    return {name: _finite(getattr(interval, name)) for name in names}


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def headings(verbose: bool = False) -> tuple[str, ...]:
    """Return the headings of the table of layers; verbose: with rows, plug-in and its cap."""
    return VERBOSE_HEADINGS if verbose else HEADINGS


def layer_cells(layer: LayerResult, verbose: bool = False) -> tuple[str, ...]:
    """Return a layer's line of the table."""
    cells = {
        "layer": printable(layer.name),
        "neurons": f"{layer.neurons:,}",
        "samples": f"{layer.samples:,}",
        "rows": f"{layer.rows:,}",
        "distinct": f"{layer.distinct:,}",
        "efficiency": efficiency_text(layer),
        "plug-in": f"{layer.efficiency(PLUG_IN):.3f}",
        "cap": f"{layer.cap / layer.neurons:.3f}",
        "verdict": layer.verdict,
    }
    return tuple(cells[heading] for heading in headings(verbose))


def efficiency_text(layer: LayerResult) -> str:
    """Return an efficiency as it is shown: with its interval, or as a lower bound."""
    if layer.sample_limited:
        return bounded_text(layer.efficiency_lower_bound)
    return interval_text(layer.efficiency(), layer.efficiency_interval())


def sampling_text(layer: LayerResult) -> str:
    """Return what was left out of a layer on purpose, in a phrase; empty if nothing was."""
    sampling = layer.sampling or {}
    # What a store says may be anything.
    said = {name: value for name, value in sampling.items() if type(value) is int}
    phrases = []
    here = layer.rows / layer.samples
    if type(share := sampling.get("positions")) is float:
        phrases.append(f"{100 * share:.4g} % of the positions of each sample")
    elif layer.target == PER_SAMPLE:
        lengths = sampling.get("lengths")
        of = f" of {lengths[0]:,} to {lengths[1]:,}" if lengths else ""
        phrases.append(f"positions {here:,.4g}{of}, {_PER_SAMPLE}")
    elif here < (all_positions := said.get("of_positions", 0)):
        phrases.append(f"positions {here:,.4g} of {all_positions:,}")
    if every := said.get("every"):
        phrases.append(f"1 batch of {every:,}")
    if max_bytes := said.get("max_bytes"):
        phrases.append(f"at most {max_bytes:,} bytes of rows")
    return ", ".join(phrases)


def bounded_text(value: float) -> str:
    """Return a lower bound as it is shown."""
    return f"≥ {value:.3f}"


def interval_text(value: float, interval: Interval | None) -> str:
    """Return an estimate as it is shown, with its interval if there is one."""
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval.lower:.3f}, {interval.upper:.3f}]"
