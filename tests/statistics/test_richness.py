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
    coverage_at,
    of_fewer_draws,
    one_a_sample,
    own_cases,
    several_a_sample,
)

from tsstore.statistics.richness import (
    Draws,
    Richness,
    chao,
    coverage,
    coverage_interval,
    draws_from_one_to,
    unseen_states,
)
from tsstore.statistics.special import decay_of_unseen
from tsstore.statistics.spectrum import MAX_ROWS, Spectrum

# Rows: 0 five times, 1 three times, 2 and 3 once; samples: 0 in three, 1 in two.
SPECTRUM = several_a_sample([[0, 0, 0, 1], [0, 1, 1, 2], [0, 3]])


def test_by_rows_a_draw_is_a_row() -> None:
    rows = Draws.of(SPECTRUM)
    assert rows.counts.tolist() == [1, 3, 5]
    assert rows.states.tolist() == [2, 1, 1]
    assert (rows.number, rows.total) == (10, 10)
    assert (rows.distinct, rows.once, rows.twice) == (4, 2, 0)


def test_by_samples_a_draw_is_a_sample() -> None:
    samples = Draws.of(SPECTRUM, 3)
    assert samples.counts.tolist() == [1, 2, 3]
    assert samples.states.tolist() == [2, 1, 1]
    assert (samples.number, samples.total) == (3, 7)
    assert (samples.distinct, samples.once, samples.twice) == (4, 2, 1)


def test_samples_without_a_state_of_their_own_count() -> None:
    assert Draws.of(SPECTRUM, 50).number == 50


def test_weights_add_up_to_the_total() -> None:
    assert Draws.of(SPECTRUM, 3).weights.tolist() == [2.0, 2.0, 3.0]
    assert Draws.of(SPECTRUM).weights.sum() == 10.0


def test_numbers_are_python_integers_that_cannot_overflow() -> None:
    huge = Draws.of(Spectrum.from_arrays([1, 2**40], [1, 2**40], [2**40, 2**20]), np.int64(2**40))
    numbers = (huge.number, huge.total, huge.once, huge.twice, huge.distinct)
    assert all(type(number) is int for number in numbers)
    assert huge.total == 2**40 + 2**60


def test_unseen_is_that_of_the_draws() -> None:
    assert Draws.of(SPECTRUM).unseen == decay_of_unseen(10, 2, 0)
    assert Draws.of(SPECTRUM, 3).unseen == decay_of_unseen(3, 2, 1)


def test_more_incidences_than_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="seen in 3 samples, so there were at least as many"):
        Draws.of(SPECTRUM, 2)


def test_no_rows_are_refused() -> None:
    for samples in (None, 5):
        with pytest.raises(ValueError, match="no rows"):
            Draws.of(Spectrum.empty(), samples)


def test_a_size_is_a_whole_number_of_the_draws() -> None:
    assert draws_from_one_to(9, 1) == 1
    assert type(draws_from_one_to(9, np.int64(7))) is int
    for size in (0, 10):
        with pytest.raises(ValueError, match=f"from 1 to the 9 that there are: found {size}"):
            draws_from_one_to(9, size)
    with pytest.raises(TypeError):
        draws_from_one_to(9, 2.5)  # type: ignore[arg-type]


@given(counts_per_state)
def test_with_one_position_a_sample_both_ways_are_one(counts: list[int]) -> None:
    spectrum, samples = one_a_sample(counts)
    by_rows, by_samples = Draws.of(spectrum), Draws.of(spectrum, samples)
    assert by_rows.counts.tolist() == by_samples.counts.tolist()
    assert by_rows.states.tolist() == by_samples.states.tolist()
    assert (by_rows.number, by_rows.total) == (by_samples.number, by_samples.total)


FUNCTIONS: dict[str, Any] = {
    "chao1": lambda spectrum: chao(spectrum).estimate,
    "chao1_se": lambda spectrum: chao(spectrum).standard_error,
    "chao1_se_iNEXT": lambda spectrum: chao(spectrum).standard_error,
    "chao1_ci95_lognormal": lambda spectrum: list(chao(spectrum)[2:]),
    # scikit-bio and vegan take the states seen alone, without (n - 1)/n.
    "chao1_classic_no_n_factor": lambda spectrum: (
        spectrum.distinct
        + (chao(spectrum).estimate - spectrum.distinct) * spectrum.rows / (spectrum.rows - 1)
    ),
}

INEXT: dict[str, Any] = {
    "iNEXT-3.0.2|ChaoRichness_est": lambda spectrum: chao(spectrum).estimate,
    "iNEXT-3.0.2|ChaoRichness_se": lambda spectrum: chao(spectrum).standard_error,
    "iNEXT-3.0.2|ChaoRichness_lcl95": lambda spectrum: chao(spectrum).lower,
    "iNEXT-3.0.2|ChaoRichness_ucl95": lambda spectrum: chao(spectrum).upper,
}

Z = 1.959963984540054


def without_upper_end(spectrum: Spectrum) -> bool:
    return Draws.of(spectrum).twice == 0 and Draws.of(spectrum).unseen is not None


@pytest.mark.parametrize(
    ("function", "spectrum", "expected", "tolerance"), reference_cases(FUNCTIONS, "expected")
)
def test_reference(function: Any, spectrum: Spectrum, expected: Any, tolerance: Any) -> None:
    found = function(spectrum)
    if without_upper_end(spectrum) and function is not FUNCTIONS["chao1"]:
        # Formulas for the scatter know nothing of states seen twice where there are none.
        assert np.max(found) in (math.inf, pytest.approx(expected, rel=1e-12))
    else:
        assert agrees(found, expected, tolerance)


@pytest.mark.parametrize(
    ("function", "spectrum", "expected", "tolerance"), reference_cases(INEXT, "tool_values")
)
def test_inext(function: Any, spectrum: Spectrum, expected: Any, tolerance: Any) -> None:
    # It prints three decimals.
    del tolerance
    if not without_upper_end(spectrum) or function is INEXT["iNEXT-3.0.2|ChaoRichness_est"]:
        assert function(spectrum) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("spectrum", "samples", "expected"), own_cases("chao"))
def test_estimate_to_the_last_digits(
    spectrum: Spectrum, samples: int | None, expected: str
) -> None:
    assert chao(spectrum, samples).estimate == pytest.approx(float(expected), rel=1e-14)


def test_with_states_seen_twice() -> None:
    found = chao(Spectrum.from_counts([1, 1, 1, 1, 2, 2, 5]))
    shrink, missing = 12 / 13, 12 / 13 * 4
    variance = 2 * (shrink * 2 + shrink**2 * 8 + shrink**2 * 4)
    factor = math.exp(Z * math.sqrt(math.log(1 + variance / missing**2)))
    assert found.estimate == pytest.approx(7 + missing, rel=1e-14)
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-14)
    assert found.lower == pytest.approx(7 + missing / factor, rel=1e-14)
    assert found.upper == pytest.approx(7 + missing * factor, rel=1e-14)


def test_without_states_seen_twice_there_is_no_upper_end() -> None:
    found = chao(Spectrum.from_counts([1, 1, 1, 4]))
    assert found.estimate == pytest.approx(4 + 6 / 7 * 3, rel=1e-14)
    # With a chance of 2.5 % none was seen twice where 3.69 are on average.
    assert found.lower == pytest.approx(4 + 6 / 7 * 9 / 2 / -math.log(0.025), rel=1e-12)
    assert found.standard_error == found.upper == math.inf
    assert chao(Spectrum.from_counts([1, 1, 1, 4]), states_limit=16).upper == 16


def test_states_all_seen_once_leave_open_how_many_there_are() -> None:
    found = chao(Spectrum.from_arrays([1], [1], [500]))
    assert found.lower == pytest.approx(500 + 499 / 500 * 500**2 / 7.377759, rel=1e-6)
    assert found.upper == math.inf


def test_where_nothing_speaks_for_unseen_states() -> None:
    found = chao(Spectrum.from_counts([2, 2, 3]))
    spread = 2 * (math.exp(-2) - math.exp(-4)) + math.exp(-3) - math.exp(-6)
    spread -= (4 * math.exp(-2) + 3 * math.exp(-3)) ** 2 / 7
    seen_share = 1 - (2 * math.exp(-2) + math.exp(-3)) / 3
    assert found.estimate == 3
    assert found.standard_error == pytest.approx(math.sqrt(spread), rel=1e-14)
    assert found.lower == 3
    assert found.upper == pytest.approx((3 + Z * math.sqrt(spread)) / seen_share, rel=1e-14)


@pytest.mark.parametrize(("incidence", "samples"), [(3, 1_000), (2, 50)])
def test_many_states_seen_equally_often_leave_the_estimate_in_its_interval(
    incidence: int, samples: int
) -> None:
    found = chao(Spectrum.from_arrays([5], [incidence], [1_000]), samples)
    assert found.lower == found.estimate == 1_000 < found.upper


def test_by_samples_it_is_chao2() -> None:
    samples = several_a_sample([[0, 0, 0, 1], [0, 1, 1, 2], [0, 3], [0, 2, 4]])
    assert [part.tolist() for part in samples.incidences()] == [[1, 2, 4], [2, 2, 1]]
    found = chao(samples, 4)
    assert found.estimate == pytest.approx(5 + 3 / 4 * 4 / (2 * 2), rel=1e-14)
    # State 1 has three rows in two samples: by rows it was not seen twice.
    assert chao(samples).estimate == pytest.approx(5 + 12 / 13 * 4 / (2 * 1), rel=1e-14)


def test_no_more_states_than_there_can_be() -> None:
    spectrum = Spectrum.from_counts([1] * 20 + [2])
    free = chao(spectrum)
    capped = chao(spectrum, states_limit=2**5)
    assert free.estimate > 32
    assert capped == Richness(32.0, free.standard_error, 32.0, 32.0)
    between = chao(spectrum, states_limit=free.estimate + 1)
    assert between[:3] == free[:3]
    assert between.upper == free.estimate + 1
    assert chao(spectrum, states_limit=math.inf) == free


def test_a_higher_level_is_wider() -> None:
    spectrum = Spectrum.from_counts([1, 1, 1, 2, 6])
    wide, narrow = chao(spectrum, level=0.99), chao(spectrum, level=0.5)
    assert wide.lower < narrow.lower < narrow.upper < wide.upper
    assert wide.estimate == narrow.estimate


def test_huge_numbers() -> None:
    found = chao(Spectrum.from_arrays([1, 2], [1, 2], [4 * 10**12, 10]))
    assert found.estimate == pytest.approx(8e23, rel=1e-11)
    assert all(math.isfinite(number) for number in found)


@given(counts_per_state)
def test_limits_enclose_the_estimate(counts: list[int]) -> None:
    spectrum, samples = one_a_sample(counts)
    found = chao(spectrum)
    assert spectrum.distinct <= found.lower <= found.estimate <= found.upper * (1 + 1e-12)
    assert found.standard_error >= 0
    assert math.isinf(found.upper) == math.isinf(found.standard_error)
    assert found == chao(spectrum, samples)
    assert unseen_states(Draws.of(spectrum)) == pytest.approx(found.estimate - spectrum.distinct)


def test_arguments_are_checked() -> None:
    spectrum = Spectrum.from_counts([1, 2, 3])
    with pytest.raises(ValueError, match="no rows"):
        chao(Spectrum.empty())
    with pytest.raises(ValueError, match="no more than 2 states: found 3 distinct"):
        chao(spectrum, states_limit=2)
    with pytest.raises(ValueError, match="samples=1"):
        chao(spectrum, 1)
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            chao(spectrum, level=level)


SMALL = Spectrum.from_counts([1] * 40 + [2] * 2 + [50])
SAMPLES = several_a_sample([[0, 0, 0, 1], [0, 1, 1, 2], [0, 3], [0, 1, 4]])


COVERAGES: dict[str, Any] = {
    "coverage": coverage,
}
COVERAGES |= {f"coverage_m{m}": partial(coverage_at, draws=m) for m in REFERENCE_SIZES}


@pytest.mark.parametrize(
    ("function", "spectrum", "expected", "tolerance"),
    of_fewer_draws(reference_cases(COVERAGES, "expected")),
)
def test_reference_coverage(
    function: Any, spectrum: Spectrum, expected: Any, tolerance: Any
) -> None:
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


def test_arguments_of_coverages_are_checked() -> None:
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
