from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.statistics.entropy import cap, entropy, plug_in
from tsstore.statistics.spectrum import Spectrum

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
