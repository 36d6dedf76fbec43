"""What an analysis found: numbers, tables, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tsstore.errors import AnalysisError, UnknownLayerError
from tsstore.statistics import entropy as entropies
from tsstore.statistics.efficiency import aIQ, efficiency, network_efficiency
from tsstore.statistics.intervals import entropy_lower_bound
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import SAMPLE_LIMITED, verdict
from tsstore.store.display import printable
from tsstore.store.reader import aliases

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LayerResult:
    """What was counted in one layer, and what follows from it.

    Attributes
    ----------
    name
        Public name of the layer.
    neurons
        Number of neurons: bits of a state.
    samples
        Number of samples.
    spectrum
        Distinct states by multiplicity k (rows) and incidence q (samples).
    equal_pairs_within_samples, pairs_within_samples
        Pairs of rows of one sample: those that are equal, and all.
    collision_bound
        Probability, at most, that any two states were taken for one; 0 if counting was exact.
    threshold
        As the user gave it.
    sampling
        What was left out on purpose; None if nothing was.
    """

    name: str
    neurons: int
    samples: int
    spectrum: Spectrum
    equal_pairs_within_samples: int = 0
    pairs_within_samples: int = 0
    collision_bound: float = 0.0
    threshold: float = 0.0
    sampling: Mapping[str, Any] | None = field(default=None)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.spectrum.rows

    @property
    def distinct(self) -> int:
        """Number of distinct states."""
        return self.spectrum.distinct

    @property
    def max_entropy(self) -> int:
        """Most bits that the layer could have: one for each neuron."""
        return self.neurons

    @property
    def cap(self) -> float:
        """Most bits that this many rows of the layer can show: min(neurons, log2 rows)."""
        return entropies.cap(self.neurons, self.rows)

    def entropy(self, alpha: float = 1.0) -> float:
        """Return the plug-in Rényi entropy of order `alpha`, in bits; 1 is Shannon's."""
        return entropies.plug_in(self.spectrum, alpha)

    def efficiency(self) -> float:
        """Return the plug-in entropy divided by the number of neurons."""
        return efficiency(self.entropy(), self.neurons)

    @cached_property
    def entropy_lower_bound(self) -> float:
        """Bits that the layer's entropy exceeds with 95 % confidence, however few the samples."""
        return entropy_lower_bound(
            self.spectrum,
            equal_pairs_within_samples=self.equal_pairs_within_samples,
            pairs_within_samples=self.pairs_within_samples,
        )

    @property
    def efficiency_lower_bound(self) -> float:
        """The lower bound of the entropy, and no more than all neurons, by the neurons."""
        return efficiency(min(self.entropy_lower_bound, self.neurons), self.neurons)

    @property
    def verdict(self) -> str:
        """``"usable"`` or ``"sample-limited"``."""
        return verdict(self.spectrum)[0]

    @property
    def reason(self) -> str:
        """The verdict's reason, in one sentence."""
        return verdict(self.spectrum)[1]

    @property
    def sample_limited(self) -> bool:
        """Whether the samples are too few for the plug-in to tell of the layer."""
        return self.verdict == SAMPLE_LIMITED

    @property
    def shown_efficiency(self) -> float:
        """The plug-in efficiency, or its lower bound where the layer is sample-limited."""
        return self.efficiency_lower_bound if self.sample_limited else self.efficiency()

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them; entropy and efficiency are the plug-in."""
        return {
            "rows": self.rows,
            "samples": self.samples,
            "distinct": self.distinct,
            "neurons": self.neurons,
            "entropy_bits": self.entropy(),
            "entropy_lower_bound_bits": self.entropy_lower_bound,
            "max_entropy_bits": self.max_entropy,
            "cap_bits": self.cap,
            "efficiency": self.efficiency(),
            "efficiency_lower_bound": self.efficiency_lower_bound,
            "verdict": self.verdict,
            "reason": self.reason,
            "collision_bound": self.collision_bound,
            "threshold": self.threshold,
            "sampling": None if self.sampling is None else dict(self.sampling),
        }

    def __repr__(self) -> str:
        return (
            f"<LayerResult {printable(self.name)}: {self.distinct:,} distinct states in "
            f"{self.rows:,} rows of {self.samples:,} samples, "
            f"efficiency {efficiency_text(self)}, {self.verdict}>"
        )


class Analysis(Mapping[str, LayerResult]):
    """What was found in a run: a mapping from layer names to results.

    Parameters
    ----------
    run
        Path of the run.
    samples
        Number of samples.
    layers
        Results by layer.
    accuracy
        Share of samples whose recorded prediction is their label; None if they were not recorded.
    """

    def __init__(
        self, run: str, samples: int, layers: Mapping[str, LayerResult], accuracy: float | None
    ) -> None:
        self.run = run
        self.samples = samples
        self.layers = dict(layers)
        self.accuracy = accuracy

    @property
    def is_lower_bound(self) -> bool:
        """Whether the network's efficiency and aIQ are lower bounds: a layer's efficiency is."""
        return any(layer.sample_limited for layer in self.values())

    def network_efficiency(self) -> float:
        """Return the geometric mean of the layers' efficiencies.

        Of a sample-limited layer the lower bound counts, and the mean is a lower bound too.
        """
        return network_efficiency([layer.shown_efficiency for layer in self.values()]) or 0.0

    def aiq(self, weight: float = 2, accuracy: float | None = None) -> float:
        """Return the artificial intelligence quotient.

        Parameters
        ----------
        weight
            How much accuracy weighs against efficiency; greater than 0.
        accuracy
            Unless given, from the recorded predictions and labels.

        Raises
        ------
        AnalysisError
            If there is no accuracy.
        """
        accuracy = self.accuracy if accuracy is None else accuracy
        if accuracy is None:
            raise AnalysisError(
                f"{self.run} has no columns prediction and label; record them, or pass accuracy="
            )
        return aIQ(self.network_efficiency(), accuracy, weight)

    @property
    def sentence(self) -> str:
        """One sentence on whether the samples were enough."""
        limited = sum(layer.sample_limited for layer in self.values())
        if not limited:
            return "The samples suffice for every layer."
        layers = "layer needs" if len(self) == 1 else "layers need"
        return f"{limited} of {len(self)} {layers} more samples."

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        plug_in = network_efficiency([layer.efficiency() for layer in self.values()])
        return {
            "run": self.run,
            "samples": self.samples,
            "layers": {name: layer.to_dict() for name, layer in self.items()},
            "network_efficiency": self.network_efficiency(),
            "network_efficiency_is_lower_bound": self.is_lower_bound,
            "network_efficiency_plug_in": plug_in,
            "accuracy": self.accuracy,
            "aiq": None if self.accuracy is None else self.aiq(),
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_frame(self) -> pd.DataFrame:
        """Return the layers' numbers as a table, one line a layer."""
        import pandas as pd

        rows = {name: layer.to_dict() for name, layer in self.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

    def __getitem__(self, name: str) -> LayerResult:
        for candidate in aliases(str(name)):
            if candidate in self.layers:
                return self.layers[candidate]
        held = ", ".join(map(printable, self.layers))
        raise UnknownLayerError(f"{self.run}: no layer {name!r} was analysed; there are {held}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        from tsstore.analysis.display import analysis_text

        return analysis_text(self)

    def _repr_html_(self) -> str:
        from tsstore.analysis.display import analysis_html

        return analysis_html(self)


def efficiency_text(layer: LayerResult) -> str:
    """Return an efficiency as it is shown.

    Of a sample-limited layer that is the lower bound; behind it stand the plug-in, and the cap
    that the number of rows puts on any plug-in.
    """
    if not layer.sample_limited:
        return f"{layer.efficiency():.3f}"
    return (
        f"≥ {layer.efficiency_lower_bound:.3f} (plug-in {layer.efficiency():.3f}, "
        f"cap {layer.cap / layer.neurons:.3f})"
    )
