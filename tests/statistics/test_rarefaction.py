from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from entropy_cases import agrees, reference_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from richness_cases import (
    REFERENCE_SIZES,
    counts_per_state,
    coverage_at,
    entropy_at,
    of_fewer_draws,
    one_a_sample,
    own_cases,
    richness_at,
    several_a_sample,
)
from sampling import (
    Counted,
    clumped_rows,
    delta_of_counts,
    independent_rows,
    values_without_groups,
    zipf,
)

from tsstore.statistics.estimators import entropy, jackknife, plug_in
from tsstore.statistics.jackknife import standard_error
from tsstore.statistics.rarefaction import (
    KEPT_BELOW,
    NODES,
    Nodes,
    condense,
    mean_surprisals,
    scatter_at,
    share_seen,
)
from tsstore.statistics.richness import Draws
from tsstore.statistics.spectrum import Spectrum

DRAWS = 2_000_000


def many_counts(seed: int, largest: int = 1_000_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = np.exp(rng.uniform(0, np.log(largest), 20_000)).astype(np.int64)
    return np.unique(counts, return_counts=True)


@pytest.mark.parametrize("draws", [3, 1_000, 250_000, 1_999_990])
def test_condensed_sums_are_those_of_all_counts(draws: int) -> None:
    counts, states = many_counts(1)
    nodes, amounts = condense(counts, states)
    assert len(nodes) < 400 < 5_000 < len(counts)
    for function in (
        lambda j: share_seen(j, draws, DRAWS),
        lambda j: mean_surprisals(j, draws, DRAWS, float(draws)),
    ):
        # Of the many counts some are enough to compare with.
        exact = states[::50] @ function(counts[::50])
        few, weights = condense(counts[::50], states[::50])
        assert weights @ function(few) == pytest.approx(exact, rel=1e-12)
    assert amounts @ nodes**2.0 == pytest.approx(float(states @ counts**2.0), rel=1e-12)
    assert amounts.sum() == pytest.approx(states.sum(), rel=1e-12)


def test_a_condensed_spectrum_is_rarefied_as_all_of_it() -> None:
    counts, states = many_counts(2, 3_000)
    spectrum = Spectrum.from_arrays(counts, counts, states)
    n = spectrum.rows
    for draws in (2, 1_000, n // 3, n - 1):
        seen = states @ share_seen(counts, draws, n)
        bits = states @ mean_surprisals(counts, draws, n, float(draws)) / draws / np.log(2)
        assert richness_at(spectrum, draws) == pytest.approx(seen, rel=1e-12)
        assert entropy_at(spectrum, draws) == pytest.approx(bits, rel=1e-12, abs=1e-12)


def test_small_counts_and_few_ones_stay_as_they_are() -> None:
    counts = np.array([1, 5, 127, 128, 255, 10**12])
    nodes, amounts = condense(counts, np.arange(6))
    assert nodes.tolist() == counts.tolist()
    assert amounts.tolist() == [0, 1, 2, 3, 4, 5]
    few = np.arange(KEPT_BELOW, KEPT_BELOW + NODES)
    assert condense(few, few)[0].tolist() == few.tolist()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(-3, 9)), max_size=60))
def test_nodes_take_counts_in_any_order(entries: list[tuple[int, int]]) -> None:
    counts = np.array([count for count, _ in entries], np.int64)
    amounts = np.array([amount for _, amount in entries], np.int64)
    nodes = Nodes.up_to(10**7)
    found = nodes.amounts(counts, amounts)
    size = np.abs(amounts).sum()
    assert found.sum() == pytest.approx(amounts.sum(), abs=1e-10 * size + 1e-12)
    logs = amounts @ np.log(counts)
    assert found @ np.log(nodes.counts) == pytest.approx(logs, abs=1e-9 * size + 1e-12)


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
def test_a_draw_more_adds_what_is_not_covered(counts: list[int], data: st.DataObject) -> None:
    spectrum = Spectrum.from_counts([*counts, 2])
    size = data.draw(st.integers(1, spectrum.rows - 1))
    more = richness_at(spectrum, size + 1) - richness_at(spectrum, size)
    assert more == pytest.approx(1 - (coverage_at(spectrum, size) or 0), abs=1e-12)


@given(counts_per_state, st.data())
def test_both_grow_with_the_draws(counts: list[int], data: st.DataObject) -> None:
    spectrum = Spectrum.from_counts([*counts, 1])
    size = data.draw(st.integers(1, spectrum.rows - 1))
    assert richness_at(spectrum, size) <= richness_at(spectrum, size + 1) + 1e-12
    assert entropy_at(spectrum, size) <= entropy_at(spectrum, size + 1) + 1e-12


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


def blank_and_clumped(samples: int) -> np.ndarray:
    """One state in every sample, one in nearly every, and many others."""
    rows = clumped_rows(np.random.default_rng(3), zipf(3_000), samples, 16) + 2
    rows[:, 0] = 0
    rows[: samples - 3, 1] = 1
    return rows


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("size", [1, 40, 350, 600])
def test_they_are_those_of_the_spectra_without_each_group(size: int, uneven: bool) -> None:
    rng = np.random.default_rng(4)
    shares = rng.dirichlet(np.full(32, 2.0 if uneven else 1e4))
    counted = Counted.of(blank_and_clumped(700), rng.choice(32, 700, p=shares))
    found = scatter_at(counted.spectrum, 700, counted.changes, [size, 700])[0]
    for number, function in ((found.distinct, richness_at), (found.incidence_entropy, entropy_at)):
        values = values_without_groups(
            counted.spectrum,
            700,
            counted.changes,
            lambda spectrum, samples, at=function: at(spectrum, size, samples),
        )
        assert number == pytest.approx(standard_error(values), rel=1e-4, abs=1e-9)


def test_beyond_what_is_left_it_is_that_of_what_is_left() -> None:
    counted = Counted.of(independent_rows(np.random.default_rng(5), zipf(50), 320))
    assert counted.changes.samples.tolist() == [10] * 32
    found = scatter_at(counted.spectrum, 320, counted.changes, [310, 315, 320])
    assert found[0] == found[1] == found[2]
    assert 0 < found[0].incidence_entropy < 0.2


def test_bands_hold_what_so_many_samples_show_on_average() -> None:
    rng, shares, size, held = np.random.default_rng(6), zipf(300), 50, 0
    # What 50 rows show on average, by the definition.
    expected = float((1 - (1 - shares) ** size).sum())
    for _ in range(60):
        counted = Counted.of(independent_rows(rng, shares, 200), rng.integers(0, 32, 200))
        error = scatter_at(counted.spectrum, 200, counted.changes, [size])[0].distinct
        held += abs(richness_at(counted.spectrum, size, 200) - expected) <= 2.04 * error
    assert held >= 54


def test_other_samples_are_refused() -> None:
    counted = Counted.of(independent_rows(np.random.default_rng(7), zipf(50), 64))
    with pytest.raises(ValueError, match="the groups hold 64 samples"):
        scatter_at(counted.spectrum, 63, counted.changes, [3])
    one = delta_of_counts([[2]], [[2]], [2])
    with pytest.raises(ValueError, match="at least two groups"):
        scatter_at(Spectrum.from_counts([2]), 2, one, [1])
