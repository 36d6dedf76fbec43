from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from tsstore.statistics.numerics import (
    check_level,
    digamma_correction,
    grassberger_correction,
    jackknife_correction,
    log_ratio,
)

EXACT: dict[Callable[..., Any], Callable[[int], Any]] = {
    digamma_correction: lambda k: mpmath.log(k) - mpmath.digamma(k),
    grassberger_correction: lambda k: (
        mpmath.log(k) - mpmath.digamma(k // 2 + mpmath.mpf(1) / 2) - mpmath.log(2)
    ),
    jackknife_correction: lambda k: 1 + (k - 1) * mpmath.log1p(mpmath.mpf(-1) / k) if k > 1 else 1,
}

MULTIPLICITIES = [*range(1, 301), 999, 1_000, 10**6 + 1, 10**6, 10**13 - 1, 10**13, 2**53]


@pytest.mark.parametrize("correction", EXACT, ids=lambda correction: correction.__name__)
def test_corrections_are_right_to_more_digits_than_an_entropy_is_known_to(
    correction: Callable[..., Any],
) -> None:
    with mpmath.workdps(60):
        exact = np.array([float(EXACT[correction](k)) for k in MULTIPLICITIES])
    assert np.abs(correction(MULTIPLICITIES) - exact).max() < 1e-14


def test_corrections_at_one_are_what_the_papers_say() -> None:
    assert digamma_correction(1) == pytest.approx(np.euler_gamma, rel=1e-15)
    assert grassberger_correction(1) == pytest.approx(np.euler_gamma + np.log(2), rel=1e-15)
    assert jackknife_correction(1) == 1.0


def test_grassberger_follows_its_recursion() -> None:
    # Grassberger 2003: G_1 = -gamma - ln 2, G_2 = 2 - gamma - ln 2, G_(2m+1) = G_2m and
    # G_(2m+2) = G_2m + 2 / (2m + 1).
    k = np.arange(1, 400)
    g = np.log(k) - grassberger_correction(k)
    by_recursion = [-np.euler_gamma - np.log(2), 2 - np.euler_gamma - np.log(2)]
    for even in range(4, k.size + 2, 2):
        by_recursion += [by_recursion[-1], by_recursion[-1] + 2 / (even - 1)]
    np.testing.assert_allclose(g, by_recursion[: k.size], rtol=1e-14)


def test_digamma_correction_is_that_of_harmonic_numbers() -> None:
    k = np.arange(1, 200)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / k[:-1])])
    np.testing.assert_allclose(
        digamma_correction(k), np.log(k) + np.euler_gamma - harmonic, atol=1e-14
    )


@pytest.mark.parametrize("correction", EXACT, ids=lambda correction: correction.__name__)
def test_corrections_take_any_shape_and_integers(correction: Callable[..., Any]) -> None:
    table = np.array([[1, 2, 40], [64, 10**13, 7]])
    assert correction(table).shape == table.shape
    assert correction(5).shape == ()
    np.testing.assert_array_equal(correction(table), correction(table.astype(np.float64)))


@pytest.mark.parametrize("k", [1, 2, 10**6, 5 * 10**12, 5 * 10**12 + 1, 10**13 - 1_000, 10**13 - 1])
def test_log_ratio_keeps_its_digits_near_zero(k: int) -> None:
    with mpmath.workdps(60):
        exact = float(mpmath.log(mpmath.mpf(10**13) / k))
    for dtype in (np.int64, np.float64):
        found = log_ratio(10**13, np.array([k], dtype=dtype))
        assert found.tolist() == pytest.approx([exact], rel=1e-15, abs=0)


def test_log_ratio_of_the_whole_is_zero() -> None:
    ratios = log_ratio(7, np.array([7, 3]))
    assert ratios[0] == 0
    assert ratios[1] == pytest.approx(np.log(7 / 3), rel=1e-15)


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, math.nan, math.inf])
def test_a_level_is_between_0_and_1(level: float) -> None:
    check_level(0.95)
    with pytest.raises(ValueError, match=f"between 0 and 1, such as 0.95: found {level}"):
        check_level(level)
