from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from entropy_cases import agrees, own_cases, reference_cases, spectrum_of
from hypothesis import given
from hypothesis import strategies as st

from tsstore.statistics.estimators import cap, chao_wang_jost, entropy, plug_in, renyi_unbiased
from tsstore.statistics.spectrum import Spectrum, merge

ORDERS = [
    0,
    1e-9,
    0.3,
    0.5,
    0.97,
    1 - 1e-9,
    1,
    1 + 1e-9,
    1.03,
    1.04,
    1.5,
    2,
    3,
    50,
    1e300,
    math.inf,
]


def exact_entropy(entries: dict[int, int], alpha: float) -> float:
    """Rényi entropy in bits of {multiplicity: states}, to 60 digits before rounding."""
    with mpmath.workdps(60):
        rows = mpmath.mpf(sum(k * states for k, states in entries.items()))
        shares = [(k / rows, states) for k, states in entries.items()]
        if alpha == math.inf:
            return float(-mpmath.log(max(p for p, _ in shares), 2))
        if alpha == 1:
            return float(-sum(states * p * mpmath.log(p, 2) for p, states in shares))
        order = mpmath.mpf(alpha)
        total = mpmath.fsum(states * p**order for p, states in shares)
        return float(mpmath.log(total, 2) / (1 - order))


@pytest.mark.parametrize(
    ("alpha", "bits"), [(0, 1.58496), (0.5, 1.53453), (1, 1.48548), (2, 1.39593), (math.inf, 1.0)]
)
def test_known_values(alpha: float, bits: float) -> None:
    assert entropy([5, 3, 2], alpha) == pytest.approx(bits, abs=5e-6)
    assert plug_in(Spectrum.from_counts([5, 3, 2]), alpha) == entropy([5, 3, 2], alpha)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize(
    "entries",
    [
        {1: 100},
        {1: 9_998, 2: 1},
        {1: 20, 2: 7, 3: 3, 40: 2, 1_000: 1},
        {1: 1, 999_999_999: 1},
        {1: 1_000, 10**13 - 1_000: 1},
        {1: 3 * 10**9, 2: 7 * 10**8, 5_000: 400, 10**13 - 4_402_000_000: 1},
        {5 * 10**12 + 1: 1, 5 * 10**12 - 1: 1},
    ],
)
def test_every_digit_of_every_order(entries: dict[int, int], alpha: float) -> None:
    k = list(entries)
    spectrum = Spectrum.from_arrays(k, k, list(entries.values()))
    assert plug_in(spectrum, alpha) == pytest.approx(
        exact_entropy(entries, alpha), rel=1e-14, abs=1e-300
    )


def test_incidences_do_not_matter() -> None:
    assert plug_in(Spectrum.from_counts([4, 4, 2], [1, 4, 2])) == entropy([2, 4, 4])


def test_one_state_has_no_entropy_and_equal_states_have_log2_of_their_number() -> None:
    for alpha in ORDERS:
        assert entropy([17], alpha) == 0.0
        assert math.copysign(1, entropy([17], alpha)) == 1
        assert entropy([3] * 8, alpha) == pytest.approx(3.0, rel=1e-15)


def test_zeros_are_ignored_and_any_shape_or_number_type_is_taken() -> None:
    assert entropy([0, 5, 3, 0, 2]) == entropy([5, 3, 2])
    assert entropy(np.array([[5, 3], [2, 0]], dtype=np.uint8)) == entropy([5, 3, 2])
    assert entropy([0.5, 0.3, 0.2]) == pytest.approx(entropy([5, 3, 2]), rel=1e-15)
    assert type(entropy(np.array([5, 3, 2]), np.float64(2))) is float
    assert entropy([5e-324, 1e9]) == 0.0


@pytest.mark.parametrize("counts", [[1, -1], [math.nan], [1, math.inf]])
def test_counts_must_be_finite_and_not_negative(counts: list[float]) -> None:
    with pytest.raises(ValueError, match=r"finite and not negative: found (-1|nan|inf)"):
        entropy(counts)


@pytest.mark.parametrize("alpha", [-0.5, math.nan, -math.inf])
def test_order_must_be_a_number_from_zero_up(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be"):
        entropy([1, 2], alpha)
    with pytest.raises(ValueError, match="alpha must be"):
        plug_in(Spectrum.from_counts([1, 2]), alpha)


def test_no_rows_is_an_error() -> None:
    for counts in ([], [0, 0]):
        with pytest.raises(ValueError, match="there are no rows"):
            entropy(counts)
    with pytest.raises(ValueError, match="there are no rows"):
        plug_in(Spectrum.empty())


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=40))
def test_entropy_never_grows_with_the_order_nor_beyond_its_cap(counts: list[int]) -> None:
    values = [entropy(counts, alpha) for alpha in ORDERS]
    assert values[0] == pytest.approx(math.log2(len(counts)))
    assert values[0] <= cap(10**6, sum(counts)) + 1e-12
    assert all(low <= high + 1e-12 for high, low in itertools.pairwise(values))
    assert values[-1] >= 0


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.sampled_from(ORDERS))
def test_counts_and_their_spectrum_agree(counts: list[int], alpha: float) -> None:
    spectrum = Spectrum.from_counts(counts)
    assert plug_in(spectrum, alpha) == pytest.approx(entropy(counts, alpha), rel=1e-12, abs=1e-14)


def test_cap_is_the_smaller_of_neurons_and_log2_rows() -> None:
    assert cap(100, 10_000) == pytest.approx(13.287712, abs=1e-6)
    assert cap(6, 10_000) == 6.0
    assert cap(6, 1) == 0.0
    assert cap(10, 2**80) == 10.0
    for neurons, rows in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match=f"found {neurons} neurons, {rows} rows"):
            cap(neurons, rows)


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
def test_unbiased_entropies_need_rows(
    function: Callable[[Spectrum, int], float],
) -> None:
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
