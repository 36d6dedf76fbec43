from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from entropy_cases import agrees, own_cases, reference_cases, spectrum_of
from hypothesis import given
from hypothesis import strategies as st

from tsstore.statistics.diversity import renyi_unbiased
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.estimators import chao_wang_jost
from tsstore.statistics.spectrum import Spectrum, merge

LN2 = math.log(2)

HUGE = 10**13

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=40)


def hill(spectrum: Spectrum, order: float = 1.0) -> float:
    return float(2 ** plug_in(spectrum, order))


def hill_unbiased(spectrum: Spectrum, order: int) -> float | None:
    entropy = renyi_unbiased(spectrum, order)
    return None if entropy is None else float(2**entropy)


EXPECTED: dict[str, Callable[[Spectrum], Any]] = {
    "renyi0.5_bits": lambda spectrum: plug_in(spectrum, 0.5),
    "renyi1.0000001_bits": lambda spectrum: plug_in(spectrum, 1.0000001),
    "renyi2_bits": lambda spectrum: plug_in(spectrum, 2),
    "renyi3_bits": lambda spectrum: plug_in(spectrum, 3),
    "simpson_dominance_plugin": lambda spectrum: 1 / hill(spectrum, 2),
    "simpson_diversity_obs": lambda spectrum: hill(spectrum, 2),
    "shannon_diversity_obs": lambda spectrum: hill(spectrum, 1),
    "H2_unbiased_bits": lambda spectrum: renyi_unbiased(spectrum, 2),
    "collision_prob_unbiased": lambda spectrum: 1 / (hill_unbiased(spectrum, 2) or math.inf),
    "inv_simpson_unbiased": lambda spectrum: hill_unbiased(spectrum, 2),
    "simpson_diversity_mvue": lambda spectrum: hill_unbiased(spectrum, 2),
    "shannon_diversity_chao": lambda spectrum: 2 ** chao_wang_jost(spectrum),
}

TOOLS: dict[str, Callable[[Spectrum], Any]] = {
    "iNEXT-3.0.2|hill_obs_q0": lambda spectrum: hill(spectrum, 0),
    "iNEXT-3.0.2|hill_obs_q0.5": lambda spectrum: hill(spectrum, 0.5),
    "iNEXT-3.0.2|hill_obs_q1": hill,
    "iNEXT-3.0.2|hill_obs_q2": lambda spectrum: hill(spectrum, 2),
    "iNEXT-3.0.2|hill_obs_q3": lambda spectrum: hill(spectrum, 3),
    "iNEXT-3.0.2|hill_asy_q1": lambda spectrum: 2 ** chao_wang_jost(spectrum),
    "iNEXT-3.0.2|hill_asy_q2": lambda spectrum: hill_unbiased(spectrum, 2),
    "iNEXT-3.0.2|hill_asy_q3": lambda spectrum: hill_unbiased(spectrum, 3),
    "scikit-bio-0.7.4|renyi0.5_bits": lambda spectrum: plug_in(spectrum, 0.5),
    "scikit-bio-0.7.4|renyi2_bits": lambda spectrum: plug_in(spectrum, 2),
    "scikit-bio-0.7.4|renyi3_bits": lambda spectrum: plug_in(spectrum, 3),
    "scikit-bio-0.7.4|renyiinf_bits": lambda spectrum: plug_in(spectrum, math.inf),
    "scikit-bio-0.7.4|inv_simpson_finite": lambda spectrum: hill_unbiased(spectrum, 2),
}


@pytest.mark.parametrize(("spectrum", "expected"), own_cases())
def test_every_digit(spectrum: Spectrum, expected: dict[str, Any]) -> None:
    for order, exact in expected["renyi_unbiased"].items():
        found = renyi_unbiased(spectrum, int(order))
        assert (found is None) == (exact is None)
        assert found is None or found == pytest.approx(exact, rel=1e-14, abs=1e-26), order
    for order, exact in expected["hill"].items():
        assert hill(spectrum, float(order)) == pytest.approx(exact, rel=1e-14)
    pairs, exact = hill_unbiased(spectrum, 2), expected["hill_unbiased"]["2"]
    assert (pairs is None) == (exact is None)
    assert pairs is None or pairs == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize(
    ("function", "spectrum", "value", "tolerance"), reference_cases(EXPECTED, "expected")
)
def test_reference_values(
    function: Callable[[Spectrum], float],
    spectrum: Spectrum,
    value: float,
    tolerance: dict[str, Any] | None,
) -> None:
    assert agrees(function(spectrum), value, tolerance)


@pytest.mark.parametrize(
    ("function", "spectrum", "value", "tolerance"),
    reference_cases({"hill": hill, "renyi_nats": plug_in}, "expected"),
)
def test_reference_values_by_order(
    function: Callable[..., float],
    spectrum: Spectrum,
    value: dict[str, float],
    tolerance: dict[str, Any] | None,
) -> None:
    unit = LN2 if function is plug_in else 1.0
    for order, exact in value.items():
        assert agrees(function(spectrum, float(order)) * unit, exact, tolerance), order


@pytest.mark.parametrize(
    ("function", "spectrum", "value", "tolerance"), reference_cases(TOOLS, "tool_values")
)
def test_other_tools_agree(
    function: Callable[[Spectrum], float | None],
    spectrum: Spectrum,
    value: float | None,
    tolerance: Any,
) -> None:
    found = function(spectrum)
    assert (found is None) == (value is None)
    assert found is None or found == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("function", [renyi_unbiased, hill, hill_unbiased])
def test_no_rows_is_an_error(function: Callable[[Spectrum, int], float]) -> None:
    with pytest.raises(ValueError, match="at least one row: there are no rows"):
        function(Spectrum.empty(), 2)


@pytest.mark.parametrize("order", [1, 0, -3])
def test_unbiased_orders_are_from_two_up(order: int) -> None:
    for function in (renyi_unbiased, hill_unbiased):
        with pytest.raises(ValueError, match=f"whole number from 2 up: found {order}"):
            function(spectrum_of({3: 2}), order)


def test_hill_takes_orders_from_zero_up() -> None:
    for order in (-1, math.nan):
        with pytest.raises(ValueError, match="order alpha must be a number from 0 to infinity"):
            hill(spectrum_of({3: 2}), order)


def test_too_few_rows_of_each_state_tell_nothing() -> None:
    assert renyi_unbiased(spectrum_of({1: 1}), 2) is None
    assert renyi_unbiased(spectrum_of({1: 10**9}), 2) is None
    assert hill_unbiased(spectrum_of({1: 50, 4: 3}), 5) is None
    # No time is spent on an order that no state reaches.
    assert renyi_unbiased(spectrum_of({40: 3}), 10**18) is None


@pytest.mark.parametrize("rows", [2, 7, HUGE])
def test_one_state_has_no_entropy(rows: int) -> None:
    for order in range(2, min(rows, 9) + 1):
        value = renyi_unbiased(spectrum_of({rows: 1}), order)
        assert value == 0.0
        assert math.copysign(1, value or 0.0) == 1
        assert hill_unbiased(spectrum_of({rows: 1}), order) == 1.0


@pytest.mark.parametrize("order", [2, 3, 10])
def test_a_tiny_entropy_of_many_rows_keeps_its_digits(order: int) -> None:
    # mu is 1 - order * 3e-13: its logarithm, taken of the float, would keep three digits.
    found = renyi_unbiased(spectrum_of({1: 3, HUGE - 3: 1}), order) or 0.0
    first_term = order / (order - 1) * 3 / HUGE / LN2
    assert found == pytest.approx(first_term, rel=1e-11, abs=0)


def test_a_power_sum_too_small_for_a_float_is_none_too_small() -> None:
    # 1e9 states of 1e4 rows: p**order is 1e-450 at order 50.
    entries = {10_000: 10**9}
    assert renyi_unbiased(spectrum_of(entries), 50) == pytest.approx(math.log2(10**9), rel=1e-3)
    assert hill_unbiased(spectrum_of(entries), 50) == pytest.approx(10**9, rel=0.01)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(2, 6))
def test_moment_is_the_share_of_equal_rows_among_all_choices(counts: list[int], order: int) -> None:
    n, equal = sum(counts), sum(math.comb(k, order) for k in counts)
    found = renyi_unbiased(Spectrum.from_counts(counts), order)
    if equal == 0:
        assert found is None
    else:
        exact = math.log2(math.comb(n, order) / equal) / (order - 1)
        assert found == pytest.approx(exact, rel=1e-12, abs=1e-14)


def test_moment_has_the_mean_of_the_power_sum() -> None:
    # Over all outcomes of n = 9 draws from three states.
    p, n, order = (0.5, 0.3, 0.2), 9, 3
    mean = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if (c := n - a - b) >= 0:
            chance = math.factorial(n) * math.prod(
                share**k / math.factorial(k) for share, k in zip(p, (a, b, c), strict=True)
            )
            number = hill_unbiased(Spectrum.from_counts([k for k in (a, b, c) if k]), order)
            mean += chance * (number or math.inf) ** (1 - order)
    assert mean == pytest.approx(sum(share**order for share in p), rel=1e-13)


@given(COUNTS, st.integers(2, 6))
def test_unbiased_is_at_least_the_plug_in(counts: list[int], order: int) -> None:
    spectrum = Spectrum.from_counts(counts)
    found = renyi_unbiased(spectrum, order)
    assert found is None or found >= plug_in(spectrum, order) - 1e-12


@given(COUNTS)
def test_hill_numbers_fall_from_the_distinct_states_to_the_inverse_of_the_largest_share(
    counts: list[int],
) -> None:
    spectrum = Spectrum.from_counts(counts)
    numbers = [hill(spectrum, order) for order in (0, 0.5, 1, 1.5, 2, 10, math.inf)]
    assert numbers[0] == pytest.approx(len(counts), rel=1e-13)
    assert numbers[-1] == pytest.approx(sum(counts) / max(counts), rel=1e-13)
    assert all(low <= high * (1 + 1e-12) for high, low in itertools.pairwise(numbers))
    assert hill(spectrum) == numbers[2]


@given(COUNTS, st.randoms(use_true_random=False), st.integers(0, 40))
def test_order_parts_and_incidences_do_not_matter(counts: list[int], random: Any, cut: int) -> None:
    whole = Spectrum.from_counts(counts)
    shuffled = random.sample(counts, len(counts))
    incidences = [random.randint(1, k) for k in shuffled]
    parts = [
        Spectrum.from_counts(shuffled[side], incidences[side])
        for side in (slice(cut), slice(cut, None))
    ]
    assert renyi_unbiased(merge(parts), 2) == renyi_unbiased(whole, 2)
    assert hill(merge(parts), 0.5) == hill(whole, 0.5)


def test_equally_likely_states_are_counted_by_few_rows() -> None:
    random = np.random.default_rng(2)
    _, counts = np.unique(random.integers(0, 4_096, 1_000), return_counts=True)
    spectrum = Spectrum.from_counts(counts)
    assert hill_unbiased(spectrum, 2) == pytest.approx(4_096, rel=0.25)
    assert hill(spectrum, 2) < 1_000
