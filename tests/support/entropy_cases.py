"""What the estimators of entropy should give: cases of our own, and of other tools if present."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsstore.statistics.spectrum import Spectrum

OWN = Path(__file__).parents[1] / "data" / "statistics" / "cases.json"
"""Written by make_cases.py beside it."""

REFERENCE = Path(__file__).parents[3] / "shared" / "statistics" / "cases.json"
"""Published and computed values of other tools; their data are not ours to pass on."""

# A published number without a tolerance of its own has ten digits.
PUBLISHED = 1e-9


def spectrum_of(entries: dict[int, int]) -> Spectrum:
    """Make the spectrum of so many states with each multiplicity."""
    return Spectrum.from_arrays(list(entries), list(entries), list(entries.values()))


def own_cases() -> list[Any]:
    """Give (spectrum, expected values) of each own case as a parameter of that name."""
    cases = json.loads(OWN.read_text())
    return [
        pytest.param(
            Spectrum.from_arrays(case["multiplicity"], case["multiplicity"], case["states"]),
            case["expected"],
            id=case["name"],
        )
        for case in cases
    ]


def reference_cases(functions: dict[str, Callable[[Spectrum], Any]], field: str) -> list[Any]:
    """Give (function, spectrum, value, tolerance) for each value there is of such a name."""
    if not REFERENCE.exists():
        reason = f"{REFERENCE} is not there"
        return [pytest.param(None, None, None, None, marks=pytest.mark.skip(reason=reason))]
    return [
        pytest.param(functions[name], _spectrum(case), value, case.get("tolerance"), id=identity)
        for case in json.loads(REFERENCE.read_text())
        for name, value in case.get(field, {}).items()
        if name in functions and (identity := f"{case['name']}-{name}")
    ]


def agrees(found: Any, expected: Any, tolerance: dict[str, Any] | None) -> bool:
    """Compare as the case asks: absolute, relative, or absolute with the size of the value."""
    tolerance = tolerance or {"default_rel": PUBLISHED}
    if "default_abs" in tolerance:
        return found == pytest.approx(expected, abs=tolerance["default_abs"])
    if "default_rel" in tolerance:
        return found == pytest.approx(expected, rel=tolerance["default_rel"], abs=1e-15)
    assert tolerance == {"default": "abs 1e-13*max(1,|x|)"}
    return found == pytest.approx(expected, rel=1e-13, abs=1e-13)


def _spectrum(case: dict[str, Any]) -> Spectrum:
    if "counts" in case:
        return Spectrum.from_counts(case["counts"])
    return spectrum_of({int(k): states for k, states in case["spectrum"].items()})
