"""What was counted in a run, and the numbers that follow from it for the network as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from tsstore.analysis.results.layer import LayerNumbers
from tsstore.analysis.samples import Dealt
from tsstore.errors import AnalysisError, UnknownLayerError
from tsstore.statistics.accuracy import Answers
from tsstore.statistics.efficiency import aIQ, network_efficiency
from tsstore.statistics.intervals import Interval, Jackknifed
from tsstore.statistics.network_intervals import aiq_interval, network_interval
from tsstore.statistics.numerics import check_level
from tsstore.store.reading.store import aliases
from tsstore.text import printable

Layer = TypeVar("Layer", bound=LayerNumbers, covariant=True)


class NetworkNumbers(Mapping[str, Layer]):
    """What was found in a run: a mapping from layer names to results.

    Parameters
    ----------
    run
        Path of the run.
    samples
        Number of samples that were counted.
    layers
        Results by layer.
    accuracy
        Share of samples whose recorded prediction is their label; None if they were not recorded.
    accuracy_by_group
        The same by the groups of samples of the layers' changes.
    samples_left_out
        Number of samples of the run that were left out, because they repeat others.
    repeated_samples
        Number of samples that have the id of an earlier one, and were counted; None if it is not
        known.
    repeats
        ``"once"`` if samples of one id depend on each other, ``"each"`` if none do.
    not_compared
        Why ids were not compared, in a phrase; empty if they were, or there are none.
    dealt
        Which samples the groups hold, for the difference to another analysis; None if no column
        tells.
    """

    def __init__(
        self,
        run: str,
        samples: int,
        layers: Mapping[str, Layer],
        accuracy: float | None,
        accuracy_by_group: Answers | None = None,
        *,
        samples_left_out: int = 0,
        repeated_samples: int | None = None,
        repeats: str = "once",
        not_compared: str = "",
        dealt: Dealt | None = None,
    ) -> None:
        self.run = run
        self.samples = samples
        self.layers = dict(layers)
        self.accuracy = accuracy
        self.accuracy_by_group = accuracy_by_group
        self.samples_left_out = samples_left_out
        self.repeated_samples = repeated_samples
        self.repeats = repeats
        self.not_compared = not_compared
        self.dealt = dealt

    @property
    def is_lower_bound(self) -> bool:
        """Whether the network's efficiency and aIQ are lower bounds: a layer's efficiency is."""
        return any(layer.sample_limited for layer in self.values())

    def network_efficiency(self) -> float:
        """Return the geometric mean of the layers' efficiencies.

        Of a sample-limited layer the lower bound counts, and the mean is a lower bound too.
        """
        return network_efficiency([layer.shown_efficiency for layer in self.values()]) or 0.0

    def network_interval(
        self, level: float = 0.95, *, unseen_like_rare: bool = False
    ) -> Interval | None:
        """Return a confidence interval for the network's efficiency.

        None where it is a lower bound, or a layer has no interval; ValueError if level is not
        between 0 and 1. What `unseen_like_rare` assumes, `LayerNumbers.interval` says.
        """
        check_level(level)
        entropies = self.known_entropies()
        if entropies is None:
            return None
        return network_interval(
            entropies, self.neurons(), level=level, unseen_like_rare=unseen_like_rare
        )

    def aiq(self, weight: float = 2, accuracy: float | None = None) -> float:
        """Return the artificial intelligence quotient, a lower bound where the efficiency is.

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
        return aIQ(self.network_efficiency(), self._accuracy(accuracy), weight)

    def aiq_interval(
        self,
        level: float = 0.95,
        weight: float = 2,
        accuracy: float | None = None,
        *,
        unseen_like_rare: bool = False,
    ) -> Interval | None:
        """Return a confidence interval for the aIQ; None as `network_interval`, raises as `aiq`.

        An accuracy that is given is taken to be exact; the recorded one has its own limits. What
        `unseen_like_rare` assumes, `LayerNumbers.interval` says.
        """
        check_level(level)
        answers: float | Answers = self._accuracy(accuracy)
        if accuracy is None and self.accuracy_by_group is not None:
            answers = self.accuracy_by_group
        entropies = self.known_entropies()
        if entropies is None:
            return None
        return aiq_interval(
            entropies,
            self.neurons(),
            answers,
            weight=weight,
            clusters=next((layer.clusters for layer in self.values()), None),
            level=level,
            unseen_like_rare=unseen_like_rare,
        )

    def __getitem__(self, name: str) -> Layer:
        for candidate in aliases(str(name)):
            if candidate in self.layers:
                return self.layers[candidate]
        held = ", ".join(map(printable, self.layers))
        raise UnknownLayerError(f"{self.run}: no layer {name!r} was analysed; there are {held}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def _accuracy(self, given: float | None) -> float:
        accuracy = self.accuracy if given is None else given
        if accuracy is None:
            raise AnalysisError(
                f"{self.run} has no columns prediction and label; record them, or pass accuracy="
            )
        return accuracy

    def known_entropies(self) -> list[Jackknifed] | None:
        """Return the layers' entropies with those without each group; None unless all are good."""
        layers = [layer for layer in self.values() if not layer.sample_limited]
        known = [_capped(layer.jackknifed, layer.neurons) for layer in layers if layer.jackknifed]
        return known if known and len(known) == len(self) else None

    def neurons(self) -> list[int]:
        """Return the neurons of each layer."""
        return [layer.neurons for layer in self.values()]


def _capped(entropy: Jackknifed, neurons: int) -> Jackknifed:
    """Return an entropy of no more than one bit a neuron, which scatters as it did."""
    names = ("estimate", "lowest", "highest")
    return replace(entropy, **{name: min(getattr(entropy, name), neurons) for name in names})
