from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from entropy_cases import agrees, reference_cases
from hypothesis import given
from richness_cases import counts_per_state, one_a_sample, own_cases, several_a_sample

from tsstore.statistics.draws import Draws
from tsstore.statistics.richness import Richness, chao, unseen_states
from tsstore.statistics.spectrum import Spectrum

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
