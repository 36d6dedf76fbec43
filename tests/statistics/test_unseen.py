from __future__ import annotations

import math

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.statistics.unseen import scaled_exponential_integral, tail_sum, unseen

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
    assert unseen(*counts) is None
    assert tail_sum(*counts) == 0.0


def test_share_is_chao_and_josts() -> None:
    found = unseen(11, 4, 5)
    assert found is not None
    assert found.share == pytest.approx(10 / 50, rel=1e-15)
    assert found.rest == pytest.approx(40 / 50, rel=1e-15)
    assert found.decay == pytest.approx(-math.log(0.8), rel=1e-15)
    without_pairs = unseen(11, 4, 0)
    assert without_pairs is not None
    assert without_pairs.share == pytest.approx(2 / 32, rel=1e-15)


def test_tiny_and_nearly_full_shares_keep_their_digits() -> None:
    tiny = unseen(10**13, 10**12, 3)
    assert tiny is not None
    assert tiny.decay == pytest.approx(6e-25, rel=1e-12)
    full = unseen(10**13, 1, 4 * 10**12)
    assert full is not None
    assert full.rest == pytest.approx(10**13 / (1.8 * 10**13), rel=1e-12)
    assert tail_sum(10**13, 1, 4 * 10**12) == pytest.approx(1.25e-13, rel=1e-12)


@pytest.mark.parametrize("counts", EACH_BRANCH)
def test_tail_sum_is_right_in_each_branch(counts: tuple[int, int, int]) -> None:
    assert tail_sum(*counts) == pytest.approx(float(exact_tail_sum(*counts)), rel=2e-15)


@given(st.integers(2, 400), st.integers(1, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_tail_sum_is_the_sum_of_its_terms(draws: int, once: int, twice: int) -> None:
    tail = unseen(draws, once, twice)
    if tail is None or tail.decay < 0.002:
        return
    terms = (
        math.exp(-tail.decay * j) / (draws - 1 + j) for j in range(1, int(40 / tail.decay) + 2)
    )
    assert tail_sum(draws, once, twice) == pytest.approx(math.fsum(terms), rel=2e-14)


@given(st.integers(2, 60), st.integers(1, 60), st.integers(0, 60))
def test_tail_sum_is_the_published_bracket(draws: int, once: int, twice: int) -> None:
    tail = unseen(draws, once, twice)
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
    import numpy as np

    many = np.int64(10**13)
    assert unseen(many, many, np.int64(1)) == unseen(10**13, 10**13, 1)
    assert tail_sum(many, many, np.int64(1)) == tail_sum(10**13, 10**13, 1)
