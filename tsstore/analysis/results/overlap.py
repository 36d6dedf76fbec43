"""Which distinct states of the layers two runs share, and how much of the second is new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.results.by_layer import ByLayer
from tsstore.statistics.rarefaction import Rarefaction
from tsstore.statistics.rates import binomial_limits
from tsstore.statistics.special import check_level
from tsstore.statistics.spectrum import Spectrum, merge
from tsstore.statistics.verdict import UNSEEN_UP_TO
from tsstore.text import listed, printable

HEADINGS = (
    "layer",
    "states of first",
    "of second",
    "of both",
    "share of all",
    "new rows",
    "expected",
    "new samples",
    "bits to nearest",
)
QUANTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, eq=False)
class LayerOverlap:
    """Which distinct states of one layer two runs share, and how much of the second is new.

    What is new are states that the first run never shows. All counts are exact.

    Attributes
    ----------
    name, neurons
        The layer's name, and how many neurons it has.
    samples
        Samples of the first run and of the second one.
    alone
        Spectra of the states that one run alone shows: of the first, and of the second.
    shared
        Spectra of the states that both show, as counted in the first, and in the second.
    new_samples
        Samples of the second run that show a new state, at least in one row.
    distances
        Of new states drawn at random, in how many bits each differs from the nearest state of the
        first run: int64 (drawn,), ascending.
    collision_bound
        Bound of the probability that any two states were taken for one; 0 up to 128 neurons.
    """

    name: str
    neurons: int
    samples: tuple[int, int]
    alone: tuple[Spectrum, Spectrum]
    shared: tuple[Spectrum, Spectrum]
    new_samples: int
    distances: npt.NDArray[np.int64]
    collision_bound: float = 0.0

    @cached_property
    def spectra(self) -> tuple[Spectrum, Spectrum]:
        """Spectra of all states of the first run, and of the second."""
        first, second = (merge(pair) for pair in zip(self.alone, self.shared, strict=True))
        return first, second

    @property
    def distinct(self) -> tuple[int, int]:
        """Distinct states of the first run, and of the second."""
        first, second = self.spectra
        return first.distinct, second.distinct

    @property
    def distinct_in_both(self) -> int:
        """Distinct states that both runs show."""
        return self.shared[0].distinct

    @property
    def equal_samples(self) -> int:
        """Samples of the run that has fewer: at so many of each the states are compared."""
        return min(self.samples)

    @cached_property
    def jaccard(self) -> float:
        """Share of the distinct states of `equal_samples` samples of each that both show.

        That is Jaccard's index, at equal numbers of samples: of the run that has more, what so many
        of its samples show is the mean over all ways to choose them (Hurlbert 1971), of the states
        in both as of those that it shows at all.
        """
        both = all_states = 0.0
        for samples, spectrum, shared in zip(self.samples, self.spectra, self.shared, strict=True):
            all_states += _shown(spectrum, samples, self.equal_samples)
            if samples == max(self.samples):
                both = _shown(shared, samples, self.equal_samples)
        return both / (all_states - both)

    @property
    def new_rows(self) -> float:
        """Share of the second run's rows whose state is new."""
        return self.alone[1].rows / self.spectra[1].rows

    @property
    def expected_new_rows(self) -> float:
        """Share of rows that would be new in more samples like those of the first run.

        Good's (1953) estimate: the share of its rows in states that one sample alone shows.
        """
        return _of_single_samples(self.spectra[0])

    @property
    def new_samples_share(self) -> float:
        """Share of the second run's samples that show a new state."""
        return self.new_samples / self.samples[1]

    def new_samples_limits(self, level: float = 0.95) -> tuple[float, float]:
        """Return limits of that share, for independent samples (Clopper and Pearson 1934)."""
        check_level(level)
        others = self.samples[1] - self.new_samples
        lower, upper = binomial_limits(self.new_samples, others, level)
        return float(lower), float(upper)

    @property
    def median_distance(self) -> float | None:
        """Bits to the nearest state of the first run, of the median new state; None without any."""
        return float(np.median(self.distances)) if len(self.distances) else None

    @property
    def sample_limited(self) -> bool:
        """Whether samples are too few to compare states, as more of the same would be new."""
        return max(map(_of_single_samples, self.spectra)) > UNSEEN_UP_TO

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        lower, upper = self.new_samples_limits()
        there = len(self.distances) > 0
        quantiles = np.quantile(self.distances, QUANTILES).tolist() if there else [None] * 3
        return {
            "neurons": self.neurons,
            "samples_of_first": self.samples[0],
            "samples_of_second": self.samples[1],
            "distinct_in_first": self.distinct[0],
            "distinct_in_second": self.distinct[1],
            "distinct_in_both": self.distinct_in_both,
            "equal_samples": self.equal_samples,
            "jaccard": self.jaccard,
            "rows_of_second": self.spectra[1].rows,
            "rows_of_second_in_both": self.shared[1].rows,
            "new_rows_share": self.new_rows,
            "expected_new_rows_share": self.expected_new_rows,
            "new_samples": self.new_samples,
            "new_samples_share": self.new_samples_share,
            "new_samples_share_lower": lower,
            "new_samples_share_upper": upper,
            "new_states_drawn": len(self.distances),
            "nearest_bits_lower_quartile": quantiles[0],
            "nearest_bits_median": quantiles[1],
            "nearest_bits_upper_quartile": quantiles[2],
            "sample_limited": self.sample_limited,
            "collision_bound": self.collision_bound,
        }

    @property
    def cells(self) -> tuple[str, ...]:
        """The layer's line in a table, as :data:`HEADINGS` names its columns."""
        median = self.median_distance
        return (
            printable(self.name),
            *(f"{number:,}" for number in (*self.distinct, self.distinct_in_both)),
            _percent(self.jaccard),
            _percent(self.new_rows),
            _percent(self.expected_new_rows),
            _percent(self.new_samples_share),
            "" if median is None else f"{median:g} of {self.neurons:,}",
        )

    def __repr__(self) -> str:
        return (
            f"<LayerOverlap {printable(self.name)}: {self.distinct_in_both:,} states in both, "
            f"{_percent(self.new_rows)} of the second run's rows are new>"
        )


class Overlap(ByLayer[LayerOverlap]):
    """Which distinct states two runs share: a mapping from layer names; see `compare`.

    Attributes
    ----------
    first, second
        Paths of the runs.
    """

    headings = HEADINGS

    def __init__(self, runs: tuple[str, str], layers: Mapping[str, LayerOverlap]) -> None:
        self.first, self.second = runs
        self.subject = f"{self.first} with {self.second}"
        self.layers = dict(layers)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        layers = {name: layer.to_dict() for name, layer in self.items()}
        return {"first": self.first, "second": self.second, "layers": layers}

    def plot(self, ax: Any = None) -> Any:
        """Draw by layer which share of the second run's rows is new; as `Analysis.plot`.

        Beside it, a bar: the share that would be new in more samples like those of the first run.
        """
        from tsstore.analysis.results.plots import plot_beside

        shown = {name: (own.new_rows, own.expected_new_rows) for name, own in self.items()}
        return plot_beside(
            shown,
            ("new in the second run", "expected of more samples of the first"),
            "share of rows whose state the first run does not show",
            ax,
        )

    @property
    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        lines = [
            "New: rows of the second run in states that the first never shows, and samples with "
            "such a row. Expected: what share of rows would be new in more samples like the "
            "first's."
        ]
        sizes = {layer.equal_samples for layer in self.values() if len(set(layer.samples)) > 1}
        if sizes:
            size = " or ".join(f"{size:,}" for size in sorted(sizes))
            lines.append(
                f"Share of all: at {size} samples of each run, on average over all ways to choose "
                "them from the larger one."
            )
        drawn = max((len(layer.distances) for layer in self.values()), default=0)
        if drawn:
            lines.append(
                f"Bits to the nearest state of the first run: median of {drawn:,} new states drawn "
                "at random, or of all where there are fewer."
            )
        if limited := [layer.name for layer in self.values() if layer.sample_limited]:
            lines.append(
                f"{listed(limited)}: sample-limited: so many states are of one sample alone that "
                "even two draws of one network share few; compare what is new with what is "
                "expected, and give more samples."
            )
        return lines


def _shown(spectrum: Spectrum, samples: int, kept: int) -> float:
    """Return how many states so many of the samples show, on average."""
    return Rarefaction(spectrum, samples).richness(kept) if spectrum.rows else 0.0


def _of_single_samples(spectrum: Spectrum) -> float:
    return spectrum.rows_in_single_samples / spectrum.rows


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
