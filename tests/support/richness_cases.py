"""What richness, coverage and diversity at a size should give, computed in 60 digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tsstore.statistics.rarefaction import Rarefaction
from tsstore.statistics.spectrum import Spectrum

OWN = Path(__file__).parents[1] / "data" / "statistics" / "richness_cases.json"
"""Written by make_richness_cases.py beside it."""

SIZES = (1, 3, 4, 10, 11, 13, 18, 19, 25, 28, 37, 44, 47, 50, 84, 95, 100, 189, 248, 284, 336, 378)
MORE_SIZES = (472, 998, 1500, 5000, 50_000, 10**6, 5 * 10**8, 10**10, 5 * 10**12)
REFERENCE_SIZES = SIZES + MORE_SIZES
"""Where other tools' values are known, if their file is there."""

counts_per_state = st.lists(st.integers(1, 12), min_size=1, max_size=15)


def own_avoidance() -> list[Any]:
    """Give (marked, taken, things, logarithm of the probability) of each case."""
    return [tuple(case.values()) for case in json.loads(OWN.read_text())["avoidance"]]


def own_cases(quantity: str) -> list[Any]:
    """Give (spectrum, samples, expected value) of each case, expected as text or by size."""
    return [
        pytest.param(
            Spectrum.from_arrays(case["counts"], case["counts"], case["states"]),
            case["samples"],
            case["expected"][quantity],
            id=case["name"],
        )
        for case in json.loads(OWN.read_text())["cases"]
    ]


def of_fewer_draws(cases: list[Any]) -> list[Any]:
    """Leave out cases that ask a partial function for more draws than there are rows."""
    sizes = [getattr(case.values[0], "keywords", {}).get("draws", 1) for case in cases]
    pairs = zip(cases, sizes, strict=True)
    return [case for case, size in pairs if case.values[1] is None or size <= case.values[1].rows]


def one_a_sample(counts: list[int]) -> tuple[Spectrum, int]:
    """Make a spectrum of samples with one position each, and the number of samples."""
    return Spectrum.from_counts(counts), sum(counts)


def several_a_sample(samples: list[list[int]]) -> Spectrum:
    """Count the states of samples with several positions."""
    states = sorted({state for sample in samples for state in sample})
    return Spectrum.from_counts(
        [sum(sample.count(state) for sample in samples) for state in states],
        [sum(state in sample for sample in samples) for state in states],
    )


def richness_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float:
    """Return how many distinct states so many rows, or samples, show."""
    return Rarefaction(spectrum, samples).richness(draws)


def entropy_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float:
    """Return the plug-in entropy of so many rows, or samples, in bits."""
    return Rarefaction(spectrum, samples).entropy(draws)


def coverage_at(spectrum: Spectrum, draws: int, samples: int | None = None) -> float | None:
    """Return the coverage to expect of so many rows, or samples."""
    return Rarefaction(spectrum, samples).coverage(draws)
