"""Results of made-up layers, small enough to work out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sampling import Counted
from scipy.special import digamma

from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.results.network import Analysis
from tsstore.statistics.rates import Answers
from tsstore.statistics.spectrum import Spectrum

SAMPLES = 4096
FEW = 128

EVEN_BITS = float(digamma(SAMPLES) - digamma(SAMPLES // 4)) / math.log(2)
"""The default estimate of four states of a quarter of the samples each; the plug-in is 2."""

MISSED = 1 - 0.025 ** (1 / SAMPLES)
"""The share of samples of kinds that may have been missed, at each end of a 95 % interval."""

EVEN_LOWER = EVEN_BITS - 4 / 3 * (EVEN_BITS - 2) - MISSED * EVEN_BITS
"""The lower end of its interval where the samples of every group are the same: nothing scatters."""


def result(name: str = "conv_1", neurons: int = 8, **changes: Any) -> LayerResult:
    """Return four states of a quarter of the samples each, without groups."""
    each = SAMPLES // 4
    defaults = {"samples": SAMPLES, "spectrum": Spectrum.from_arrays([each], [each], [4])}
    return LayerResult(name, neurons, **{**defaults, **changes})


def limited(name: str = "conv_2", neurons: int = 20, **changes: Any) -> LayerResult:
    """Return a layer of which each of few samples has a state of its own."""
    spectrum = Spectrum.from_arrays([1], [1], [FEW])
    return result(name, neurons, **{"samples": FEW, "spectrum": spectrum, **changes})


def dead(name: str = "conv_3") -> LayerResult:
    return result(name, 10, spectrum=Spectrum.from_arrays([SAMPLES], [SAMPLES], [1]))


def counted(rows: np.ndarray, name: str = "conv_1", neurons: int = 8, groups: int = 32):
    """Return the result of rows (samples, positions), samples being dealt into groups in turn."""
    found = Counted.of(rows, groups=groups)
    positions = rows.shape[1]
    return LayerResult(
        name,
        neurons,
        found.samples,
        found.spectrum,
        found.equal_pairs,
        found.samples * positions * (positions - 1) // 2,
        changes=found.changes,
    )


def even(name: str = "conv_1", neurons: int = 8) -> LayerResult:
    """Return four states of a quarter of the samples each, equally many in each of 32 groups."""
    return counted(np.arange(SAMPLES)[:, None] // (SAMPLES // 4), name, neurons)


def uneven(name: str = "conv_1", neurons: int = 4) -> LayerResult:
    """Return four states, those of 6,400 samples in their order: of groups each has its own."""
    return counted(np.random.default_rng(1).integers(0, 4, (6400, 1)), name, neurons)


def all_differ(name: str = "conv_2", neurons: int = 20) -> LayerResult:
    return counted(np.arange(FEW)[:, None], name, neurons)


def analysis(
    *layers: LayerResult, accuracy: float | None = None, by_group: Answers | None = None
) -> Analysis:
    named = {layer.name: layer for layer in layers}
    return Analysis("run.zarr", SAMPLES, named, accuracy, by_group)
