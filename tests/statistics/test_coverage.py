from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from entropy_cases import agrees, reference_cases
from hypothesis import given
from hypothesis import strategies as st
from richness_cases import (
    REFERENCE_SIZES,
    counts_per_state,
    of_fewer_draws,
    one_a_sample,
    own_cases,
    several_a_sample,
)

from tsstore.statistics.coverage import (
    coverage,
    coverage_at,
    coverage_interval,
)
from tsstore.statistics.draws import Draws
from tsstore.statistics.spectrum import MAX_ROWS, Spectrum

SMALL = Spectrum.from_counts([1] * 40 + [2] * 2 + [50])
SAMPLES = several_a_sample([[0, 0, 0, 1], [0, 1, 1, 2], [0, 3], [0, 1, 4]])

FUNCTIONS: dict[str, Any] = {
    "coverage": coverage,
}
FUNCTIONS |= {f"coverage_m{m}": partial(coverage_at, draws=m) for m in REFERENCE_SIZES}


@pytest.mark.parametrize(
    ("function", "spectrum", "expected", "tolerance"),
    of_fewer_draws(reference_cases(FUNCTIONS, "expected")),
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
        if int(size) > Draws.of(spectrum, samples).number:
            continue
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
    assert coverage_at(SAMPLES, 3, 4) < coverage(SAMPLES, 4)


def test_edges() -> None:
    assert coverage(Spectrum.from_counts([1])) is None
    assert coverage_at(Spectrum.from_counts([1]), 1) is None
    assert coverage_interval(Spectrum.from_counts([1])) is None
    assert coverage(Spectrum.from_arrays([3, 2], [1, 1], [1, 1]), 1) is None
    assert coverage(Spectrum.from_counts([4, 2])) == 1
    assert coverage(Spectrum.from_counts([1, 4])) == 0.8


def test_all_rows_distinct_have_a_little_coverage() -> None:
    found = coverage(Spectrum.from_arrays([1], [1], [10**9]))
    assert found == pytest.approx(2 / ((10**9 - 1) ** 2 + 2), rel=1e-14)
    assert coverage_at(Spectrum.from_arrays([1], [1], [10**9]), 10**8) == 0


@given(counts_per_state, st.data())
def test_coverage_lies_between_0_and_1_and_grows(counts: list[int], data: st.DataObject) -> None:
    spectrum = Spectrum.from_counts([*counts, 2])
    size = data.draw(st.integers(1, spectrum.rows - 2))
    now, then = coverage_at(spectrum, size), coverage_at(spectrum, size + 1)
    assert now is not None
    assert then is not None
    assert 0 <= now <= then + 1e-15 <= 1 + 1e-15


@given(counts_per_state)
def test_coverage_is_that_at_its_own_size(counts: list[int]) -> None:
    spectrum, samples = one_a_sample(counts)
    assert coverage(spectrum) == coverage_at(spectrum, samples)
    assert coverage(spectrum) == coverage(spectrum, samples)
    half = (samples + 1) // 2
    assert coverage_at(spectrum, half) == coverage_at(spectrum, half, samples)


def test_coverage_of_the_largest_spectrum() -> None:
    spectrum = Spectrum.from_arrays([1, MAX_ROWS - 10**12], [1, MAX_ROWS - 10**12], [10**12, 1])
    assert (coverage_at(spectrum, 1) or 0) > 0.9
    assert coverage(spectrum) == pytest.approx(1 - 10**12 / MAX_ROWS, rel=1e-14)


def test_interval_is_about_estys_where_draws_are_many() -> None:
    many = Spectrum.from_arrays([1, 2, 50], [1, 2, 50], [40_000, 2_000, 1_000])
    lower, upper = coverage_interval(many, level=0.95) or (0, 0)
    reach = 1.959963984540054 * math.sqrt((40_000 * 54_000 + 2 * 94_000 * 2_000) / 94_000**3)
    assert lower == pytest.approx(54 / 94 - reach, rel=2e-4)
    assert upper == pytest.approx(54 / 94 + reach, rel=2e-4)
    wider = coverage_interval(many, level=0.99) or (0, 0)
    assert wider[0] < lower < upper < wider[1] <= 1


def test_states_all_seen_once_leave_some_coverage_open() -> None:
    # Were 2 % seen, in states seen twice, there would be none of these among 500 in 1 %.
    lower, upper = coverage_interval(Spectrum.from_arrays([1], [1], [500])) or (0, 0)
    assert lower == 0
    assert 0.015 < upper < 0.025


def test_no_state_seen_once_leaves_some_open_as_well() -> None:
    lower, upper = coverage_interval(Spectrum.from_arrays([50], [50], [10])) or (0, 0)
    assert upper == 1
    assert 0.985 < lower < 0.995
    lower, upper = coverage_interval(Spectrum.from_arrays([2], [2], [250])) or (0, 0)
    assert (lower < 0.93, upper) == (True, 1)


@pytest.mark.parametrize("states", [50, 2_000, 40_000, 10**6])
def test_interval_holds_the_share_of_states_seen(states: int) -> None:
    rng, held = np.random.default_rng(8), 0
    for _ in range(200):
        _, counts = np.unique(rng.integers(0, states, 500), return_counts=True)
        lower, upper = coverage_interval(Spectrum.from_counts(counts)) or (0, 0)
        held += lower <= len(counts) / states <= upper
    assert held >= 184


def test_by_samples_incidences_count_for_as_many_draws_as_they_scatter_like() -> None:
    one_each = coverage_interval(SAMPLES, samples=4) or (0, 0)
    alike = coverage_interval(SAMPLES, samples=4, standard_error=0.05) or (0, 0)
    assert one_each[0] < alike[0] < alike[1] < one_each[1]
    assert coverage_interval(SAMPLES, samples=4, standard_error=0.0) == one_each


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="no rows"):
        coverage(Spectrum.empty())
    with pytest.raises(ValueError, match="samples=2"):
        coverage(SAMPLES, 2)
    for draws in (0, 95):
        with pytest.raises(ValueError, match=f"draws must be from 1 to the 94 .*: found {draws}"):
            coverage_at(SMALL, draws)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        coverage_interval(SMALL, 1.0)


def test_an_interval_where_no_state_is_rare_though_one_is_without_a_group():
    spectrum = Spectrum.from_counts([3, 40, 40], [3, 40, 40])
    least, most = coverage_interval(spectrum, 0.95, 40, 0.01)
    assert 0.85 < least < most == 1.0
