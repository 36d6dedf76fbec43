from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from richness_cases import own_avoidance

from tsstore.statistics.special import (
    DIRECT,
    check_level,
    decay_of_unseen,
    digamma_correction,
    grassberger_correction,
    jackknife_correction,
    log_avoidance,
    log_ratio,
    scaled_exponential_integral,
    stirling_remainder,
    tail_sum,
    taken_marked,
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


SAYS_NOTHING = [(0, 0, 0), (1, 1, 0), (10, 0, 0), (10, 0, 5), (10, 1, 0), (1, 0, 0)]

EACH_BRANCH = [
    (2, 2, 0),
    (3, 1, 1),
    (10, 2, 4),  # fast decay: the terms themselves
    (40, 1, 19),
    (41, 21, 10),
    (70, 7, 11),  # just below DIRECT_ABOVE, near the start of the asymptotic part
    (60, 9, 13),
    (1000, 3, 20),
    (1000, 1000, 0),
    (274_866, 16_038, 0),
    (10**6, 1, 499_000),
    (10**9, 10, 400_000_000),
    (10**9, 123_456, 0),
    (10**13, 10**12, 10**11),
    (10**13, 10**13, 0),
    (10**13, 2, 4 * 10**12),
    (9 * 10**18, 10**9, 3),
]


def exact_tail_sum(draws: int, once: int, twice: int) -> mpmath.mpf:
    """T as an integral: 1/(n - 1 + j) is that of exp(-(n - 1 + j) t), and the sum geometric."""
    gain = 2 * twice if twice else 2
    loss = (draws - 1) * (once if twice else once - 1)
    with mpmath.workdps(40):
        rest = mpmath.mpf(loss) / (loss + gain)
        kink = draws * mpmath.mpf(gain) / (loss + gain)
        stops = sorted({mpmath.mpf(0), kink, mpmath.mpf(1), mpmath.mpf(10), mpmath.mpf(120)})
        return (
            mpmath.quad(
                lambda t: mpmath.exp(-t) * rest / (1 - rest * mpmath.exp(-t / draws)), stops
            )
            / draws
        )


@pytest.mark.parametrize("counts", SAYS_NOTHING)
def test_nothing_is_said_where_no_state_stands_in_for_the_unseen(
    counts: tuple[int, int, int],
) -> None:
    assert decay_of_unseen(*counts) is None
    assert tail_sum(*counts) == 0.0


def test_share_is_chao_and_josts() -> None:
    found = decay_of_unseen(11, 4, 5)
    assert found is not None
    assert found.share == pytest.approx(10 / 50, rel=1e-15)
    assert found.rest == pytest.approx(40 / 50, rel=1e-15)
    assert found.decay == pytest.approx(-math.log(0.8), rel=1e-15)
    without_pairs = decay_of_unseen(11, 4, 0)
    assert without_pairs is not None
    assert without_pairs.share == pytest.approx(2 / 32, rel=1e-15)


def test_tiny_and_nearly_full_shares_keep_their_digits() -> None:
    tiny = decay_of_unseen(10**13, 10**12, 3)
    assert tiny is not None
    assert tiny.decay == pytest.approx(6e-25, rel=1e-12)
    full = decay_of_unseen(10**13, 1, 4 * 10**12)
    assert full is not None
    assert full.rest == pytest.approx(10**13 / (1.8 * 10**13), rel=1e-12)
    assert tail_sum(10**13, 1, 4 * 10**12) == pytest.approx(1.25e-13, rel=1e-12)


@pytest.mark.parametrize("counts", EACH_BRANCH)
def test_tail_sum_is_right_in_each_branch(counts: tuple[int, int, int]) -> None:
    assert tail_sum(*counts) == pytest.approx(float(exact_tail_sum(*counts)), rel=2e-15)


@given(st.integers(2, 400), st.integers(1, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_tail_sum_is_the_sum_of_its_terms(draws: int, once: int, twice: int) -> None:
    tail = decay_of_unseen(draws, once, twice)
    if tail is None or tail.decay < 0.002:
        return
    terms = (
        math.exp(-tail.decay * j) / (draws - 1 + j) for j in range(1, int(40 / tail.decay) + 2)
    )
    assert tail_sum(draws, once, twice) == pytest.approx(math.fsum(terms), rel=2e-14)


@given(st.integers(2, 60), st.integers(1, 60), st.integers(0, 60))
def test_tail_sum_is_the_published_bracket(draws: int, once: int, twice: int) -> None:
    tail = decay_of_unseen(draws, once, twice)
    if tail is None:
        return
    with mpmath.workdps(200):
        gain = 2 * twice if twice else 2
        loss = (draws - 1) * (once if twice else once - 1)
        share = mpmath.mpf(gain) / (gain + loss)
        seen = mpmath.fsum((1 - share) ** r / r for r in range(1, draws))
        published = (1 - share) ** (1 - draws) * (-mpmath.log(share) - seen)
    assert tail_sum(draws, once, twice) == pytest.approx(float(published), rel=4e-15)


@pytest.mark.parametrize("x", [1e-12, 0.1, 1.0, 1.5, 20.0, 499.0, 501.0, 1e6, 1e300])
def test_scaled_exponential_integral(x: float) -> None:
    with mpmath.workdps(40):
        exact = float(mpmath.exp(x) * mpmath.e1(x)) if x < 1e9 else 1 / x
    assert scaled_exponential_integral(x) == pytest.approx(exact, rel=2e-15)


def test_numpy_numbers_do_not_overflow() -> None:
    many = np.int64(10**13)
    assert decay_of_unseen(many, many, np.int64(1)) == decay_of_unseen(10**13, 10**13, 1)
    assert tail_sum(many, many, np.int64(1)) == tail_sum(10**13, 10**13, 1)


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
