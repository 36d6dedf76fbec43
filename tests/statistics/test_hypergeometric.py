from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from richness_cases import own_avoidance

from tsstore.statistics.hypergeometric import (
    DIRECT,
    log_avoidance,
    stirling_remainder,
    taken_marked,
)


@st.composite
def urns(draw: st.DrawFn, largest: int = 40) -> tuple[int, int, int]:
    """(marked, taken, things) of a small urn."""
    things = draw(st.integers(2, largest))
    return draw(st.integers(1, things)), draw(st.integers(1, things - 1)), things


def probability(j: int, marked: int, taken: int, things: int) -> float:
    ways = math.comb(marked, j) * math.comb(things - marked, taken - j)
    return ways / math.comb(things, taken)


@pytest.mark.parametrize(("marked", "taken", "things", "expected"), own_avoidance())
def test_avoidance_has_all_digits_in_each_branch(
    marked: int, taken: int, things: int, expected: str
) -> None:
    found = log_avoidance(np.array([marked]), taken, things)[0]
    if expected == "-inf":
        assert found == -math.inf
    else:
        assert found == pytest.approx(float(expected), rel=1e-14, abs=0)


@given(urns())
def test_avoidance_is_a_quotient_of_binomials(urn: tuple[int, int, int]) -> None:
    marked, taken, things = urn
    quotient = math.comb(things - marked, taken) / math.comb(things, taken)
    found = log_avoidance(np.array([marked]), taken, things)[0]
    assert math.exp(found) == pytest.approx(quotient, rel=1e-13)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 300))
def test_avoidance_is_symmetric(marked: int, taken: int, rest: int) -> None:
    things = marked + taken + rest
    one = log_avoidance(np.array([marked]), taken, things)[0]
    other = log_avoidance(np.array([taken]), marked, things)[0]
    assert one == pytest.approx(other, rel=1e-13)


@pytest.mark.parametrize("taken", [0, 1, 3000, 4990, 5000])
def test_avoidance_of_many_numbers_is_that_of_each(taken: int) -> None:
    marked = np.array([0, 1, DIRECT, DIRECT + 1, 500, 1999, 2000, 2001, 4999, 5000])
    together = log_avoidance(marked, taken, 5000)
    alone = [log_avoidance(marked[i : i + 1], taken, 5000)[0] for i in range(marked.size)]
    assert together.tolist() == alone
    assert together[0] == 0
    assert (np.diff(together[np.isfinite(together)]) <= 0).all()


def test_nothing_avoids_what_takes_too_many() -> None:
    assert log_avoidance(np.array([1, 2, 3]), 8, 10).tolist()[2] == -math.inf
    assert np.isfinite(log_avoidance(np.array([1, 2]), 8, 10)).all()


@pytest.mark.parametrize("x", [1, 2, 7, 15, 16, 17, 100, 10**6, 10**13])
def test_stirling_remainder(x: int) -> None:
    with mpmath.workdps(60):
        leading = (x + mpmath.mpf(0.5)) * mpmath.log(x) - x + mpmath.log(2 * mpmath.pi) / 2
        exact = float(mpmath.loggamma(x + 1) - leading)
    assert stirling_remainder(x) == pytest.approx(exact, rel=1e-14, abs=1e-14)


@given(urns())
def test_weights_of_a_small_urn_are_its_probabilities(urn: tuple[int, int, int]) -> None:
    marked, taken, things = urn
    numbers, weights = taken_marked(np.array([marked]), taken, things)
    for j in range(max(0, taken + marked - things), min(marked, taken) + 1):
        found = weights[0, numbers[0] == j].sum()
        assert found == pytest.approx(probability(j, marked, taken, things), rel=1e-12, abs=1e-15)
    assert weights.sum() == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("taken", [3, 5 * 10**12, 10**13 - 1])
@pytest.mark.parametrize("marked", [1, 50, 10**6, 4 * 10**12, 6 * 10**12, 10**13 - 3, 10**13])
def test_mean_and_variance_of_a_huge_urn(marked: int, taken: int) -> None:
    things = 10**13
    numbers, weights = taken_marked(np.array([marked]), taken, things)
    assert (weights >= 0).all()
    assert numbers[weights > 0].min() >= max(0, taken + marked - things)
    assert numbers[weights > 0].max() <= min(marked, taken)
    mean = marked * taken / things
    # From a whole number near the mean, so that the squares keep their digits.
    excess = (numbers - round(mean)).astype(np.float64)
    shift = marked * taken / things - round(mean)
    variance = mean * (1 - marked / things) * (things - taken) / (things - 1)
    assert (weights * numbers).sum() == pytest.approx(mean, rel=1e-14)
    assert (weights * (excess - shift) ** 2).sum() == pytest.approx(variance, rel=2e-3, abs=1e-12)


@pytest.mark.parametrize("rate", [1e-4, 0.3, 4.0, 25.0, 43.0, 60.0, 3000.0])
def test_rare_events_keep_their_long_tail(rate: float) -> None:
    things, marked = 10**12, 10**7
    taken = round(rate * things / marked)
    numbers, weights = taken_marked(np.array([marked]), taken, things)
    found = (weights * np.log1p(numbers)).sum()
    far = rate + 30 * math.sqrt(rate) + 60
    with mpmath.workdps(30):
        terms = [
            mpmath.exp(-rate + j * mpmath.log(rate) - mpmath.loggamma(j + 1)) * mpmath.log1p(j)
            for j in range(int(far))
        ]
    # The urn is a Poisson variable but for the marked things' share of all.
    assert found == pytest.approx(float(mpmath.fsum(terms)), rel=2e-5)
