from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from entropy_cases import agrees, reference_cases
from hypothesis import given
from hypothesis import strategies as st
from richness_cases import (
    REFERENCE_SIZES,
    counts_per_state,
    one_a_sample,
    own_cases,
    several_a_sample,
)

from tsstore.statistics.coverage import (
    coverage,
    coverage_at,
    coverage_interval,
    draws_for_coverage,
)
from tsstore.statistics.spectrum import MAX_ROWS, Spectrum

SMALL = Spectrum.from_counts([1] * 40 + [2] * 2 + [50])
SAMPLES = several_a_sample([[0, 0, 0, 1], [0, 1, 1, 2], [0, 3], [0, 1, 4]])

FUNCTIONS: dict[str, Any] = {
    "coverage": coverage,
    "coverage_2n": lambda spectrum: coverage_at(spectrum, 2 * spectrum.rows),
    # Good's and Turing's, the center of its interval.
    "turing_coverage": lambda spectrum: sum(coverage_interval(spectrum) or ()) / 2,
}
FUNCTIONS |= {
    f"coverage_m{m}": lambda spectrum, m=m: coverage_at(spectrum, m) for m in REFERENCE_SIZES
}


def missed(interval: tuple[float, float] | None) -> list[float]:
    assert interval is not None
    return [1 - interval[1], 1 - interval[0]]


@pytest.mark.parametrize(
    ("function", "spectrum", "expected", "tolerance"), reference_cases(FUNCTIONS, "expected")
)
def test_reference(function: Any, spectrum: Spectrum, expected: Any, tolerance: Any) -> None:
    found = function(spectrum)
    if spectrum.rows == 1:
        # iNEXT says 1. A single row says nothing of the next one.
        assert found is None
    elif function is coverage and expected == 1 and 1 in spectrum.multiplicity:
        # iNEXT's A is 1 where one state was seen once and none twice, as if none had been seen
        # once. Turing's value is the limit of coverage_at from below.
        assert found == (spectrum.rows - 1) / spectrum.rows
    else:
        assert agrees(found, expected, tolerance)


@pytest.mark.parametrize(
    ("function", "spectrum", "expected", "tolerance"),
    reference_cases(
        {"scikit-bio-0.7.4|esty_ci": lambda s: None if s.rows == 1 else coverage_interval(s)},
        "tool_values",
    ),
)
def test_interval_of_another_tool(
    function: Any, spectrum: Spectrum, expected: Any, tolerance: Any
) -> None:
    del tolerance
    if spectrum.rows == 1:
        # scikit-bio gives (1, 1): that all of the next rows are new.
        assert function(spectrum) is None
        return
    # scikit-bio's is that of the share that was missed, and leaves the range from 0 to 1.
    clipped = [min(1.0, max(0.0, limit)) for limit in expected]
    assert missed(function(spectrum)) == pytest.approx(clipped, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("spectrum", "samples", "expected"), own_cases("coverage"))
def test_coverage_to_the_last_digits(
    spectrum: Spectrum, samples: int | None, expected: str
) -> None:
    assert coverage(spectrum, samples) == pytest.approx(float(expected), rel=1e-14)


@pytest.mark.parametrize(("spectrum", "samples", "expected"), own_cases("coverage_at"))
def test_coverage_at_each_size_to_the_last_digits(
    spectrum: Spectrum, samples: int | None, expected: dict[str, str]
) -> None:
    for size, value in expected.items():
        found = coverage_at(spectrum, int(size), samples)
        assert found == pytest.approx(float(value), rel=1e-13, abs=1e-300)


@pytest.mark.parametrize("kept", range(1, 7))
def test_rarefied_coverage_is_the_mean_over_all_ways_to_keep_rows(kept: int) -> None:
    rows = [0, 0, 0, 1, 1, 2, 3]
    hits = [
        rows[next_row] in {rows[i] for i in subset}
        for subset in itertools.combinations(range(len(rows)), kept)
        for next_row in set(range(len(rows))) - set(subset)
    ]
    found = coverage_at(Spectrum.from_counts([3, 2, 1, 1]), kept)
    assert found == pytest.approx(sum(hits) / len(hits), rel=1e-14)


def test_by_samples_states_of_one_sample_stand_in_for_the_unseen() -> None:
    # Three of ten incidences are of states in one sample only; A = 2 / (3 * 2 + 2).
    assert [part.tolist() for part in SAMPLES.incidences()] == [[1, 3, 4], [3, 1, 1]]
    assert coverage(SAMPLES, 4) == pytest.approx((10 - 3 + 3 * 0.25) / 10, rel=1e-15)
    assert coverage_at(SAMPLES, 4, 4) == coverage(SAMPLES, 4)
    assert coverage(SAMPLES, 400) != coverage(SAMPLES, 4)


def test_edges() -> None:
    assert coverage(Spectrum.from_counts([1])) is None
    assert coverage_at(Spectrum.from_counts([1]), 5) is None
    assert draws_for_coverage(Spectrum.from_counts([1]), 0.5) is None
    assert coverage_interval(Spectrum.from_counts([1])) is None
    assert coverage(Spectrum.from_arrays([3, 2], [1, 1], [1, 1]), 1) is None
    assert coverage(Spectrum.from_counts([4, 2])) == 1
    assert coverage(Spectrum.from_counts([1, 4])) == 0.8
    assert coverage_at(Spectrum.from_counts([1, 4]), 1000) == 0.8


def test_all_rows_distinct_have_a_little_coverage() -> None:
    found = coverage(Spectrum.from_arrays([1], [1], [10**9]))
    assert found == pytest.approx(2 / ((10**9 - 1) ** 2 + 2), rel=1e-14)
    assert coverage_at(Spectrum.from_arrays([1], [1], [10**9]), 10**8) == 0


@given(counts_per_state, st.integers(1, 300))
def test_coverage_lies_between_0_and_1_and_grows(counts: list[int], size: int) -> None:
    spectrum = Spectrum.from_counts(counts)
    now, then = coverage_at(spectrum, size), coverage_at(spectrum, size + 1)
    if now is None or then is None:
        assert spectrum.rows == 1
        return
    assert 0 <= now <= 1
    assert now <= then + 1e-15


@given(counts_per_state)
def test_coverage_is_that_at_its_own_size(counts: list[int]) -> None:
    spectrum, samples = one_a_sample(counts)
    assert coverage(spectrum) == coverage_at(spectrum, samples)
    assert coverage(spectrum) == coverage(spectrum, samples)
    assert coverage_at(spectrum, 7) == coverage_at(spectrum, 7, samples)


@given(counts_per_state, st.floats(0.01, 0.99))
def test_draws_for_coverage_are_the_fewest(counts: list[int], target: float) -> None:
    spectrum = Spectrum.from_counts(counts)
    size = draws_for_coverage(spectrum, target)
    if size is None:
        assert spectrum.rows == 1
    elif size == math.inf:
        assert (coverage_at(spectrum, 10**6) or 0) < target
    else:
        assert (coverage_at(spectrum, int(size)) or 0) >= target - 1e-15
        assert size == 1 or (coverage_at(spectrum, int(size) - 1) or 0) < target


@pytest.mark.parametrize("target", [0.05, 0.3, 0.7, 0.9, 0.99])
def test_draws_for_coverage_by_samples(target: float) -> None:
    size = draws_for_coverage(SAMPLES, target, 4)
    assert size is not None
    assert (coverage_at(SAMPLES, int(size), 4) or 0) >= target
    assert size == 1 or (coverage_at(SAMPLES, int(size) - 1, 4) or 1) < target


def test_draws_for_coverage_at_any_size() -> None:
    huge = Spectrum.from_arrays([1, 2, 10**13], [1, 2, 10**13], [10**9, 10**8, 1])
    few, many = draws_for_coverage(huge, 0.5), draws_for_coverage(huge, 0.999_95)
    assert isinstance(few, int)
    assert isinstance(many, int)
    assert few < 10**13 < many
    assert (coverage_at(huge, many) or 0) >= 0.999_95
    beyond = draws_for_coverage(Spectrum.from_arrays([1], [1], [10**12]), 0.9)
    # The decay is about 2 / n**2.
    assert beyond == pytest.approx(math.log(10) * 10**24 / 2, rel=1e-6)


def test_draws_for_coverage_of_the_largest_spectrum() -> None:
    spectrum = Spectrum.from_arrays([1, MAX_ROWS - 10**12], [1, MAX_ROWS - 10**12], [10**12, 1])
    assert (coverage_at(spectrum, 1) or 0) > 0.9
    assert draws_for_coverage(spectrum, 0.9) == 1
    assert coverage(spectrum) == pytest.approx(1 - 10**12 / MAX_ROWS, rel=1e-14)


def test_interval_is_estys() -> None:
    interval = coverage_interval(SMALL, level=0.95)
    assert interval is not None
    reach = 1.959963984540054 * math.sqrt((40 * 54 + 2 * 94 * 2) / 94**3)
    assert interval == pytest.approx((54 / 94 - reach, 54 / 94 + reach), rel=1e-14)
    wider = coverage_interval(SMALL, level=0.99)
    assert wider is not None
    assert wider[0] < interval[0] < interval[1] <= wider[1] <= 1


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="no rows"):
        coverage(Spectrum.empty())
    with pytest.raises(ValueError, match="samples=2"):
        coverage(SAMPLES, 2)
    with pytest.raises(ValueError, match="draws must be at least 1"):
        coverage_at(SMALL, 0)
    for target in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="target must be between 0 and 1"):
            draws_for_coverage(SMALL, target)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        coverage_interval(SMALL, 1.0)
