"""Results as plain numbers, for JSON and tables."""

from __future__ import annotations

import math
from typing import Any

from tsstore.analysis.results.display import sentence, warning_lines
from tsstore.analysis.results.estimates import PLUG_IN
from tsstore.analysis.results.layer import LayerNumbers
from tsstore.analysis.results.network import NetworkNumbers
from tsstore.statistics.efficiency import efficiency, network_efficiency
from tsstore.statistics.estimators import ESTIMATORS
from tsstore.statistics.intervals import Interval
from tsstore.statistics.richness import Richness

LEVEL = 0.95
"""Nominal confidence of all intervals and bounds: what their functions take unless told."""


def layer_document(layer: LayerNumbers) -> dict[str, Any]:
    """Return a layer's numbers; None stands for what there is not, and for the infinite."""
    richness = layer.richness()
    by_rows = {name: layer.entropy(name) for name in ESTIMATORS}
    return {
        "rows": layer.rows,
        "samples": layer.samples,
        "clusters": layer.clusters,
        "distinct": layer.distinct,
        "neurons": layer.neurons,
        "entropy_bits": layer.entropy(),
        "entropy_interval_bits": _interval(layer.interval()),
        "entropy_interval_unseen_like_rare_bits": _interval(layer.interval(unseen_like_rare=True)),
        "entropy_lower_bound_bits": layer.entropy_lower_bound,
        "entropy_plug_in_bits": by_rows[PLUG_IN],
        "entropy_by_rows_bits": by_rows,
        "max_entropy_bits": layer.max_entropy,
        "cap_bits": layer.cap,
        "efficiency": layer.efficiency(),
        "efficiency_interval": _interval(layer.efficiency_interval()),
        "efficiency_lower_bound": layer.efficiency_lower_bound,
        "efficiency_plug_in": efficiency(by_rows[PLUG_IN], layer.neurons),
        "verdict": layer.verdict,
        "reason": layer.reason,
        "samples_needed": layer.samples_needed,
        "needs": layer.needs,
        "margin_bits": _finite(layer.margin),
        "rows_in_single_samples": layer.spectrum.rows_in_single_samples,
        "coverage": layer.coverage,
        "richness": richness.estimate,
        "richness_interval": _interval(richness),
        "collision_bound": layer.collision_bound,
        "threshold": layer.threshold,
        "target": layer.target,
        "sampling": None if layer.sampling is None else dict(layer.sampling),
    }


def analysis_document(analysis: NetworkNumbers[LayerNumbers]) -> dict[str, Any]:
    """Return an analysis's numbers, likewise."""
    plug_ins = [layer.efficiency(PLUG_IN) for layer in analysis.values()]
    answered = analysis.accuracy is not None
    return {
        "run": analysis.run,
        "samples": analysis.samples,
        "samples_left_out": analysis.samples_left_out,
        "repeated_samples": analysis.repeated_samples,
        "repeats": analysis.repeats,
        "not_compared": analysis.not_compared,
        "warnings": warning_lines(analysis),
        "level": LEVEL,
        "layers": {name: layer_document(layer) for name, layer in analysis.items()},
        "network_efficiency": analysis.network_efficiency(),
        "network_efficiency_interval": _interval(analysis.network_interval()),
        "network_efficiency_is_lower_bound": analysis.is_lower_bound,
        "network_efficiency_plug_in": network_efficiency(plug_ins),
        "accuracy": analysis.accuracy,
        "aiq": analysis.aiq() if answered else None,
        "aiq_interval": _interval(analysis.aiq_interval()) if answered else None,
        "sentence": sentence(analysis),
    }


def table_row(layer: LayerNumbers) -> dict[str, Any]:
    """Return a layer's numbers for a line of a table: of intervals the two ends."""
    document = layer_document(layer)
    del document["entropy_by_rows_bits"]
    row: dict[str, Any] = {}
    for name, value in document.items():
        if "_interval" not in name:
            row[name] = value
        else:
            row |= {f"{name}_{end}": value and value[end] for end in ("lower", "upper")}
    return row


def _interval(interval: Interval | Richness | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    names = ("lower", "upper", "standard_error")
    return {name: _finite(getattr(interval, name)) for name in names}


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
