from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

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

from tsstore.statistics.coverage import coverage_at
from tsstore.statistics.draws import Draws
from tsstore.statistics.entropy import entropy, plug_in
from tsstore.statistics.estimators import jackknife
from tsstore.statistics.rarefaction import entropy_at, richness_at
from tsstore.statistics.spectrum import Spectrum

ROWS = [0, 0, 0, 1, 1, 2, 3]
SAMPLES = [[0, 0, 0, 1], [0, 1, 1, 2], [0, 3], [0, 1, 4]]


def fewer(
    expected: dict[str, str], spectrum: Spectrum, samples: int | None
) -> list[tuple[str, str]]:
    most = Draws.of(spectrum, samples).number
    return [(size, value) for size, value in expected.items() if int(size) <= most]


def at_each_size(pattern: str, function: Any) -> dict[str, Any]:
    return {pattern.format(m): partial(function, draws=m) for m in REFERENCE_SIZES}


FUNCTIONS: dict[str, Any] = {
    **at_each_size("rare_S_m{}", richness_at),
    **at_each_size("rarefied_richness_m{}", richness_at),
    "shannon_diversity_obs": lambda spectrum: 2 ** entropy_at(spectrum, spectrum.rows),
}

TOOLS: dict[str, Any] = {
    **at_each_size("vegan-2.6-4|rarefy_m{}", richness_at),
    **at_each_size("iNEXT-3.0.2|hill_rare_m{}_q0", richness_at),
    **at_each_size("iNEXT-3.0.2|hill_rare_m{}_q1", lambda s, draws: 2 ** entropy_at(s, draws)),
}


@pytest.mark.parametrize(
    ("function", "spectrum", "expected", "tolerance"),
    of_fewer_draws(reference_cases(FUNCTIONS, "expected")),
)
def test_reference(function: Any, spectrum: Spectrum, expected: Any, tolerance: Any) -> None:
    assert agrees(function(spectrum), expected, tolerance)


@pytest.mark.parametrize(
    ("function", "spectrum", "expected", "tolerance"),
    of_fewer_draws(reference_cases(at_each_size("rarefied_richness_m{}", richness_at), "expected")),
)
def test_reference_with_six_decimals(
    function: Any, spectrum: Spectrum, expected: Any, tolerance: Any
) -> None:
    if "rarefied_richness_m10..m47" in tolerance and round(expected, 3) != expected:
        assert function(spectrum) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("function", "spectrum", "expected", "tolerance"),
    of_fewer_draws(reference_cases(TOOLS, "tool_values")),
)
def test_tools(function: Any, spectrum: Spectrum, expected: Any, tolerance: Any) -> None:
    # They subtract logarithms of factorials.
    del tolerance
    assert function(spectrum) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("spectrum", "samples", "expected"), own_cases("richness_at"))
def test_richness_to_the_last_digits(
    spectrum: Spectrum, samples: int | None, expected: dict[str, str]
) -> None:
    for size, value in fewer(expected, spectrum, samples):
        assert richness_at(spectrum, int(size), samples) == pytest.approx(float(value), rel=1e-13)


@pytest.mark.parametrize(("spectrum", "samples", "expected"), own_cases("entropy_at"))
def test_entropy_to_the_last_digits(
    spectrum: Spectrum, samples: int | None, expected: dict[str, str]
) -> None:
    for size, value in fewer(expected, spectrum, samples):
        found = entropy_at(spectrum, int(size), samples)
        assert found == pytest.approx(float(value), rel=2e-13, abs=1e-300)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("kept", range(1, len(ROWS) + 1))
def test_rarefied_by_rows_is_the_mean_over_all_ways_to_keep_them(kept: int) -> None:
    spectrum = Spectrum.from_counts([ROWS.count(state) for state in set(ROWS)])
    ways = [
        [subset.count(state) for state in set(subset)]
        for subset in itertools.combinations(ROWS, kept)
    ]
    richness = mean([len(counts) for counts in ways])
    assert richness_at(spectrum, kept) == pytest.approx(richness, rel=1e-14)
    assert entropy_at(spectrum, kept) == pytest.approx(mean([*map(entropy, ways)]), abs=1e-14)


@pytest.mark.parametrize("kept", range(1, len(SAMPLES) + 1))
def test_rarefied_by_samples_is_the_mean_over_all_ways_to_keep_them(kept: int) -> None:
    spectrum = several_a_sample(SAMPLES)
    size = kept * spectrum.incidence @ spectrum.states / len(SAMPLES)
    ways = [
        [sum(state in sample for sample in subset) for state in set().union(*subset)]
        for subset in itertools.combinations(SAMPLES, kept)
    ]
    richness = mean([len(counts) for counts in ways])
    surprise = mean([sum(c / size * math.log2(size / c) for c in counts) for counts in ways])
    assert richness_at(spectrum, kept, 4) == pytest.approx(richness, rel=1e-14)
    assert entropy_at(spectrum, kept, 4) == pytest.approx(surprise, rel=1e-13)


@given(counts_per_state)
def test_at_their_own_size_nothing_changes(counts: list[int]) -> None:
    spectrum = Spectrum.from_counts(counts)
    assert richness_at(spectrum, spectrum.rows) == spectrum.distinct
    assert entropy_at(spectrum, spectrum.rows) == plug_in(spectrum)


@given(counts_per_state, st.data())
def test_both_grow_with_the_draws(counts: list[int], data: st.DataObject) -> None:
    spectrum = Spectrum.from_counts([*counts, 1])
    size = data.draw(st.integers(1, spectrum.rows - 1))
    assert richness_at(spectrum, size) <= richness_at(spectrum, size + 1) + 1e-12
    assert entropy_at(spectrum, size) <= entropy_at(spectrum, size + 1) + 1e-12


@given(counts_per_state, st.data())
def test_a_draw_more_adds_what_is_not_covered(counts: list[int], data: st.DataObject) -> None:
    spectrum = Spectrum.from_counts([*counts, 2])
    size = data.draw(st.integers(1, spectrum.rows - 1))
    more = richness_at(spectrum, size + 1) - richness_at(spectrum, size)
    assert more == pytest.approx(1 - (coverage_at(spectrum, size) or 0), abs=1e-12)


@given(counts_per_state, st.data())
def test_with_one_position_a_sample_both_ways_are_one(
    counts: list[int], data: st.DataObject
) -> None:
    spectrum, samples = one_a_sample(counts)
    size = data.draw(st.integers(1, samples))
    for function in (richness_at, entropy_at):
        assert function(spectrum, size) == function(spectrum, size, samples)


@given(counts_per_state)
def test_a_row_less_is_what_the_jackknife_leaves_out(counts: list[int]) -> None:
    spectrum = Spectrum.from_counts(counts)
    n = spectrum.rows
    if n > 1:
        expected = plug_in(spectrum) - (jackknife(spectrum) - plug_in(spectrum)) / (n - 1)
        assert entropy_at(spectrum, n - 1) == pytest.approx(expected, abs=1e-13)


def test_a_single_draw() -> None:
    one = Spectrum.from_counts([1])
    assert richness_at(one, 1) == 1
    assert entropy_at(one, 1) == 0
    one_sample = several_a_sample([[0, 0, 1, 2]])
    assert richness_at(one_sample, 1, 1) == 3
    assert entropy_at(one_sample, 1, 1) == pytest.approx(math.log2(3))


def test_one_state_has_no_entropy_at_any_size() -> None:
    spectrum = Spectrum.from_counts([10**13])
    for size in (1, 10**6, 10**13 - 1, 10**13):
        assert entropy_at(spectrum, size) == 0
        assert richness_at(spectrum, size) == 1


def test_many_entries_are_rarefied_in_parts() -> None:
    counts = list(range(1, 1000))
    spectrum = Spectrum.from_counts(counts)
    again = [Spectrum.from_counts([k, spectrum.rows - k]) for k in (1, 500, 999)]
    assert entropy_at(spectrum, 5000) < plug_in(spectrum)
    assert entropy_at(spectrum, spectrum.rows - 1) == pytest.approx(plug_in(spectrum), rel=1e-5)
    assert all(entropy_at(two, 5000) <= 1 for two in again)


def test_arguments_are_checked() -> None:
    spectrum = Spectrum.from_counts([1, 2, 3])
    for function in (richness_at, entropy_at):
        with pytest.raises(ValueError, match="no rows"):
            function(Spectrum.empty(), 1)
        for draws in (0, 7):
            with pytest.raises(ValueError, match=f"from 1 to the 6 that there are: found {draws}"):
                function(spectrum, draws)
        with pytest.raises(ValueError, match="samples=2"):
            function(spectrum, 1, 2)
        with pytest.raises(TypeError):
            function(spectrum, 1.5)  # type: ignore[arg-type]
