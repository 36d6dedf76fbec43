from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from tsstore.statistics.missed import Missed, effective_samples, share_missed, states_left
from tsstore.statistics.spectrum import Spectrum


def missed(**changes) -> Missed:
    values = {"samples": 1_000, "shown": 8.0, "unseen": 0.01, "unseen_error": 0.0}
    rest = {"states_left": 40.0, "rarest": 1, "constant": False}
    return Missed(**{**values, **rest, **changes})


@pytest.mark.parametrize("samples", [1, 3, 100, 10**6])
@pytest.mark.parametrize("risk", [0.01, 0.025, 0.5])
def test_a_kind_of_samples_of_that_share_is_missed_with_just_that_risk(samples, risk) -> None:
    share = share_missed(samples, risk)
    assert 0 < share < 1
    assert samples * math.log1p(-share) == pytest.approx(math.log(risk), rel=1e-9)


def test_the_share_missed_is_that_of_one_end_or_of_the_only_end() -> None:
    assert missed().share(0.95) == pytest.approx(3.69 / 1_000, rel=0.01)
    assert missed(constant=True).share(0.95) == pytest.approx(3.00 / 1_000, rel=0.01)
    assert share_missed(0, 0.05) == 1.0


def test_states_left_are_those_not_seen() -> None:
    assert states_left(3, 5) == pytest.approx(math.log2(3), rel=1e-12)
    assert states_left(20, 10) == pytest.approx(math.log2(2**20 - 10), rel=1e-12)
    assert states_left(5_000, 10) == 5_000
    assert states_left(3, 8) == -math.inf


@pytest.mark.parametrize("unseen", [0.5, 0.01, 1e-4])
@pytest.mark.parametrize("states", [10.0, 16.0, 40.0, 200.0, 4_000.0])
def test_hidden_entropy_is_that_of_rows_spread_over_all_states_left(states, unseen) -> None:
    with mpmath.workdps(30):
        x = 1_000 * mpmath.mpf(unseen) / mpmath.mpf(2) ** states
        expected = unseen * mpmath.exp(x) * mpmath.e1(x) / mpmath.log(2)
    found = missed(states_left=states, unseen=unseen).highest - 8
    assert found == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("kind", ["even", "power", "two levels"])
def test_no_distribution_hides_more(kind: str) -> None:
    # The expected rest of Zhang's series, against its bound from the expected unseen share.
    shares = {
        "even": np.full(4_096, 1 / 4_096),
        "power": np.arange(1, 4_097) ** -1.3,
        "two levels": np.r_[np.full(96, 1.0), np.full(4_000, 1e-4)],
    }[kind]
    shares = shares / shares.sum()
    for samples in (100, 1_000, 10_000):
        unseen = float(shares @ np.exp(-samples * shares))
        not_seen = float(np.exp(-samples * shares).sum())
        series = [float(mpmath.e1(samples * p)) for p in np.unique(shares)]
        hidden = float(shares @ np.interp(shares, np.unique(shares), series)) / math.log(2)
        bound = missed(
            samples=samples, unseen=unseen, states_left=math.log2(not_seen), shown=0.0
        ).highest
        assert hidden <= bound * (1 + 1e-9)
        if kind == "even":
            assert hidden == pytest.approx(bound, rel=1e-6)


def test_kinds_that_were_missed_add_what_they_may_be() -> None:
    # Nothing unseen: all that may be is a share of samples that was missed.
    none = missed(unseen=0.0)
    assert none.highest == 8.0
    share = none.share(0.95)
    spread = share * (40 - math.log2(share))
    assert none.at_most(0.95, 2.04) - 8 == pytest.approx(spread, rel=0.05)
    assert missed(unseen_error=0.01).at_most(0.95, 2.04) > missed().at_most(0.95, 2.04) + 0.3
    assert missed(unseen=1.0, unseen_error=0.5).at_most(0.95, 2.0) == missed(unseen=1.0).highest


def test_where_no_state_is_left_the_kind_missed_is_like_the_rarest_state() -> None:
    frequent, rare = (missed(unseen=0.0, states_left=-math.inf, rarest=q) for q in (250, 2))
    assert frequent.highest == rare.highest == 8.0
    share = frequent.share(0.95)
    assert frequent.at_most(0.95, 2.0) - 8 == pytest.approx(share * 2, rel=0.01)
    assert rare.at_most(0.95, 2.0) - 8 > share * 8
    assert missed(unseen=0.0, states_left=-math.inf, rarest=1_000).at_most(0.95, 2.0) == 8.0


def test_samples_count_as_many_of_one_length_would() -> None:
    assert effective_samples(1_000, 50, 0) == 50  # Those without rows have shown nothing.
    assert effective_samples(7, 7 * 12, 7 * 66) == 7
    lengths = np.array([400] + [1] * 99)
    pairs = int((lengths * (lengths - 1) // 2).sum())
    worth = lengths.sum() ** 2 / (lengths**2).sum()
    assert effective_samples(100, int(lengths.sum()), pairs) == pytest.approx(worth)
    assert effective_samples(1, int(lengths.sum()), pairs) == 1
    assert effective_samples(0, 0, 0) == 0


def test_what_a_layer_has_missed_follows_from_its_spectrum() -> None:
    spectrum = Spectrum.from_counts([30, 20])
    found = Missed.by(spectrum, 50, 1, 1.0, 0.0, 0.0)
    assert found == Missed(50, 1.0, 0.0, 0.0, -math.inf, 20, constant=False)
    assert Missed.by(spectrum, 40, 2, 1.0, 0.0, 0.0).rarest == 1
    assert Missed.by(Spectrum.from_counts([9]), 9, 2, 0.0, 0.0, 0.0).constant
