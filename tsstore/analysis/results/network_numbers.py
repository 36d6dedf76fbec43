"""Numbers of a network as a whole, from what is known of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tsstore.analysis.results.by_layer import ByLayer
from tsstore.analysis.results.layer import (
    LayerResult,
    bounded_text,
    interval_document,
    interval_text,
)
from tsstore.analysis.results.layer_parts import CombinedLayer
from tsstore.errors import AnalysisError
from tsstore.statistics.efficiency import aIQ, aiq_interval, network_efficiency, network_interval
from tsstore.statistics.intervals import Interval, Jackknifed
from tsstore.statistics.rates import Answers
from tsstore.statistics.special import check_level
from tsstore.statistics.verdict import SATURATED, USABLE

OF_LAYER = ("entropy_bits", "entropy_lower_bound_bits", "distinct", "coverage")
OF_NETWORK = ("samples", "accuracy", "aiq")


Layer = TypeVar("Layer", bound=LayerResult | CombinedLayer, covariant=True)


class NetworkNumbers(ByLayer[Layer]):
    """The numbers of a network, of which there are layers by name.

    Attributes
    ----------
    run
        Path of the run.
    accuracy, accuracy_by_group
        Share of samples whose recorded prediction is their label, and the same by groups of
        samples; None if they were not recorded.
    """

    run: str
    accuracy: float | None
    accuracy_by_group: Answers | None

    @property
    def subject(self) -> str:
        """The run."""
        return self.run

    @property
    def is_lower_bound(self) -> bool:
        """Whether the network's efficiency and aIQ are lower bounds: a layer's efficiency is."""
        return any(layer.sample_limited for layer in self.values())

    def network_efficiency(self) -> float:
        """Return the geometric mean of the layers' efficiencies.

        Of a sample-limited layer the lower bound counts, and the mean is a lower bound too: then
        that of imprecise layers counts as well, as their estimates may be far off.
        """
        bounds = self.is_lower_bound
        found = [_bounding(layer) if bounds else layer.efficiency() for layer in self.values()]
        return network_efficiency(found) or 0.0

    def network_interval(
        self, level: float = 0.95, *, unseen_like_rare: bool = False
    ) -> Interval | None:
        """Return a confidence interval for the network's efficiency.

        None where it is a lower bound, or a layer has no interval; ValueError if level is not
        between 0 and 1. What `unseen_like_rare` assumes, `LayerResult.interval` says.
        """
        check_level(level)
        if (entropies := self.known_entropies()) is None:
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
        return aIQ(self.network_efficiency(), _accuracy(self, accuracy), weight)

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
        `unseen_like_rare` assumes, `LayerResult.interval` says.
        """
        check_level(level)
        answers: float | Answers = _accuracy(self, accuracy)
        if accuracy is None and self.accuracy_by_group is not None:
            answers = self.accuracy_by_group
        if (entropies := self.known_entropies()) is None:
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

    def known_entropies(self) -> list[Jackknifed] | None:
        """Return the layers' entropies with those without each group; None unless all are good."""
        known = [entropy for layer in self.values() if (entropy := _good(layer))]
        return known if known and len(known) == len(self) else None

    def neurons(self) -> list[int]:
        """Return the neurons of each layer."""
        return [layer.neurons for layer in self.values()]


def _good(layer: LayerResult | CombinedLayer) -> Jackknifed | None:
    """Return a layer's entropy, at most one bit a neuron, scattering as it did; None if limited."""
    entropy = layer.jackknifed
    if layer.sample_limited or entropy is None:
        return None
    names = ("estimate", "lowest", "highest")
    return replace(entropy, **{name: min(getattr(entropy, name), layer.neurons) for name in names})


def _bounding(layer: LayerResult | CombinedLayer) -> float:
    """Return the efficiency that counts in a lower bound: the estimate, if it can be believed."""
    believed = layer.verdict in (SATURATED, USABLE)
    return layer.efficiency() if believed else layer.efficiency_lower_bound


def _accuracy(network: NetworkNumbers[Any], given: float | None) -> float:
    accuracy = network.accuracy if given is None else given
    if accuracy is None:
        raise AnalysisError(
            f"{network.run} has no columns prediction and label; record them, or pass accuracy="
        )
    return accuracy


def network_document(network: NetworkNumbers[Any], plug_ins: Sequence[float]) -> dict[str, Any]:
    """Return a network's numbers as JSON can hold them, given the plug-ins of its layers."""
    answered = network.accuracy is not None
    return {
        "network_efficiency": network.network_efficiency(),
        "network_efficiency_interval": interval_document(network.network_interval()),
        "network_efficiency_is_lower_bound": network.is_lower_bound,
        "network_efficiency_plug_in": network_efficiency(plug_ins),
        "accuracy": network.accuracy,
        "aiq": network.aiq() if answered else None,
        "aiq_interval": interval_document(network.aiq_interval()) if answered else None,
    }


def network_lines(network: NetworkNumbers[Any]) -> list[str]:
    """Return what is said of the whole network, a line each."""
    efficiency = network.network_efficiency(), network.network_interval()
    lines = [f"network efficiency {_equals(network, *efficiency)}"]
    if network.accuracy is not None:
        lines.append(f"accuracy = {network.accuracy:.4f}")
        lines.append(f"aIQ {_equals(network, network.aiq(), network.aiq_interval())}")
    return lines


def _equals(network: NetworkNumbers[Any], value: float, interval: Interval | None) -> str:
    if network.is_lower_bound:
        return bounded_text(value)
    return f"= {interval_text(value, interval)}"


def flat_scalars(document: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of `Analysis.to_dict` that a curve over training is drawn of, by name.

    What there is not is left out. An estimate that its layer has too few samples for is none.
    """
    found: dict[str, Any] = {}
    for name, layer in document["layers"].items():
        numbers = {key: layer[key] for key in OF_LAYER}
        numbers["efficiency_lower_bound"] = layer["efficiency_lower_bound"]
        if layer["verdict"] != "sample-limited":
            numbers |= _with_ends("efficiency", layer["efficiency"], layer["efficiency_interval"])
        found |= {f"{name}/{key}": value for key, value in numbers.items()}
    efficiency = document["network_efficiency"]
    if document["network_efficiency_is_lower_bound"]:
        found["network_efficiency_lower_bound"] = efficiency
    else:
        interval = document["network_efficiency_interval"]
        found |= _with_ends("network_efficiency", efficiency, interval)
    found |= {key: document[key] for key in OF_NETWORK}
    return {prefix + key: float(value) for key, value in found.items() if value is not None}


def _with_ends(name: str, value: float, interval: Mapping[str, Any] | None) -> dict[str, Any]:
    ends = interval or {}
    return {name: value, f"{name}_lower": ends.get("lower"), f"{name}_upper": ends.get("upper")}
