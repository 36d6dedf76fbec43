from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from entropy_cases import agrees, own_cases, reference_cases, spectrum_of
from hypothesis import assume, given
from hypothesis import strategies as st

from tsstore.statistics.estimators import chao_wang_jost, jackknife, plug_in
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.standard_errors import (
    chao_wang_jost_standard_error,
    jackknife_standard_error,
)

LN2 = math.log(2)

COUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=30)

StandardError = Callable[[Spectrum], float | None]

BOTH = [jackknife_standard_error, chao_wang_jost_standard_error]


def leaving_out_each_row(counts: list[int], estimate: Callable[[Spectrum], float]) -> float:
    """Compute the jackknife's standard error from one spectrum for each state."""
    n = sum(counts)
    left = []
    for state in range(len(counts)):
        without = [k - (other == state) for other, k in enumerate(counts)]
        left.append(estimate(Spectrum.from_counts([k for k in without if k])))
    shares = np.array(counts) / n
    deviations = np.array(left) - shares @ np.array(left)
    return math.sqrt((n - 1) * float(shares @ deviations**2))


@pytest.mark.parametrize(("spectrum", "expected"), own_cases())
def test_every_digit(spectrum: Spectrum, expected: dict[str, Any]) -> None:
    found = jackknife_standard_error(spectrum)
    exact = expected["jackknife_standard_error"]
    assert (found is None) == (exact is None)
    assert found is None or found == pytest.approx(exact, rel=1e-13, abs=1e-26)


@pytest.mark.parametrize(("spectrum", "expected"), own_cases())
def test_digits_of_the_one_for_chao_wang_jost(spectrum: Spectrum, expected: dict[str, Any]) -> None:
    found = chao_wang_jost_standard_error(spectrum)
    exact = expected["chao_wang_jost_standard_error"]
    assert (found is None) == (exact is None)
    # One singleton of f1 more or less: log10(f1) digits of the difference are lost.
    singletons = spectrum.states[spectrum.multiplicity == 1].sum()
    tolerance = 1e-13 * (1 + float(singletons)) if singletons > 10**6 else 1e-12
    assert found is None or found == pytest.approx(exact, rel=tolerance, abs=1e-26)


@pytest.mark.parametrize(
    ("error", "spectrum", "value", "tolerance"),
    reference_cases(
        {
            "se_jackknife_plugin_nats": jackknife_standard_error,
            "se_jackknife_cwj_nats": chao_wang_jost_standard_error,
        },
        "expected",
    ),
)
def test_reference_values(
    error: StandardError, spectrum: Spectrum, value: float, tolerance: dict[str, Any]
) -> None:
    found = error(spectrum)
    if found is None:
        # The reference has 0 there: leaving out any one singleton of all changes the same.
        assert value == 0
        assert (spectrum.multiplicity == 1).all()
    else:
        # These values are from floats, one estimate less another.
        assert agrees(found * LN2, value, {"default_rel": 1e-10})


@pytest.mark.parametrize("error", BOTH)
def test_no_rows_is_an_error(error: StandardError) -> None:
    with pytest.raises(ValueError, match="at least one row: there are no rows"):
        error(Spectrum.empty())


@pytest.mark.parametrize("error", BOTH)
def test_a_single_row_has_no_error_to_tell(error: StandardError) -> None:
    assert error(spectrum_of({1: 1})) is None


@pytest.mark.parametrize("states", [2, 3, 1_000, 10**9])
def test_of_singletons_alone_the_plug_in_does_not_vary_and_the_other_is_refused(
    states: int,
) -> None:
    assert jackknife_standard_error(spectrum_of({1: states})) == 0
    assert chao_wang_jost_standard_error(spectrum_of({1: states})) is None


@pytest.mark.parametrize("error", BOTH)
@pytest.mark.parametrize("entries", [{2: 1}, {3: 1}, {10**13: 1}, {2: 5}, {40: 256}])
def test_equal_states_do_not_vary(error: StandardError, entries: dict[int, int]) -> None:
    assert error(spectrum_of(entries)) == 0


def test_two_states_have_a_closed_form() -> None:
    # Each row of the first state takes 3 ln 3 - 2 ln 2 from the sum of k ln k, of the other 0.
    spectrum = spectrum_of({3: 1, 1: 1})
    taken = 3 * math.log(3) - 2 * math.log(2)
    found = jackknife_standard_error(spectrum) or 0.0
    assert found * LN2 == pytest.approx(taken * math.sqrt(3 / 16 / 3), rel=1e-14)
    # Without the only singleton its estimate is 0; without another row, of 2 and 1 rows.
    left = chao_wang_jost(spectrum_of({2: 1, 1: 1}))
    found = chao_wang_jost_standard_error(spectrum) or 0.0
    assert found == pytest.approx(left * math.sqrt(3 * 3 / 16), rel=1e-14)


def test_two_nearly_equal_halves_keep_their_digits() -> None:
    # ln k - ln(k - 2) of k = 5e12 is 4e-13; the shares are a half each.
    half = 5 * 10**12
    found = jackknife_standard_error(spectrum_of({half + 1: 1, half - 1: 1})) or 0.0
    assert found * LN2 == pytest.approx(1 / half / math.sqrt(2 * half), rel=1e-12, abs=0)


@given(COUNTS)
def test_plug_in_error_is_what_leaving_out_each_row_gives(counts: list[int]) -> None:
    assume(sum(counts) > 1)
    found = jackknife_standard_error(Spectrum.from_counts(counts))
    assert found == pytest.approx(leaving_out_each_row(counts, plug_in), rel=1e-9, abs=1e-12)


@given(st.lists(st.integers(1, 5) | st.integers(1, 30), min_size=1, max_size=30))
def test_chao_wang_jost_error_is_what_leaving_out_each_row_gives(counts: list[int]) -> None:
    assume(max(counts) > 1)
    found = chao_wang_jost_standard_error(Spectrum.from_counts(counts))
    exact = leaving_out_each_row(counts, chao_wang_jost)
    assert found == pytest.approx(exact, rel=1e-9, abs=1e-12)


@given(COUNTS, st.randoms(use_true_random=False))
def test_order_and_incidences_do_not_matter(counts: list[int], random: Any) -> None:
    whole = Spectrum.from_counts(counts)
    shuffled = random.sample(counts, len(counts))
    other = Spectrum.from_counts(shuffled, [random.randint(1, k) for k in shuffled])
    for error in BOTH:
        assert error(other) == error(whole)


@pytest.mark.parametrize(
    ("estimator", "error"),
    [(jackknife, BOTH[0]), (plug_in, BOTH[0]), (chao_wang_jost, BOTH[1])],
)
def test_errors_are_about_the_spread_of_independent_draws(
    estimator: Callable[[Spectrum], float], error: StandardError
) -> None:
    random = np.random.default_rng(3)
    shares = 1 / np.arange(1, 301)
    draws = random.multinomial(2_000, shares / shares.sum(), size=200)
    spectra = [Spectrum.from_counts(row[row > 0]) for row in draws]
    spread = np.std([estimator(spectrum) for spectrum in spectra])
    mean_error = np.mean([error(spectrum) or 0.0 for spectrum in spectra])
    assert 0.85 < mean_error / spread < 1.3
