from __future__ import annotations

import math

import numpy as np
import pytest
from sampling import Counted, clumped_rows, independent_rows, shannon_entropy, uniform, zipf

from tsstore.statistics.by_samples import chao_wang_jost_by_samples
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.estimators import chao_wang_jost
from tsstore.statistics.intervals import jackknifed_entropy
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import (
    PLUG_IN_OFF_UP_TO,
    SAMPLE_LIMITED,
    SATURATED,
    SATURATED_UP_TO,
    USABLE,
    USABLE_UP_TO,
    Verdict,
    verdict,
)

EVEN = Spectrum.from_counts([500, 480, 20])
BITS = plug_in(EVEN)


def judged(counts: list[int]) -> Verdict:
    spectrum = Spectrum.from_counts(counts)
    return verdict(spectrum, sum(counts), plug_in(spectrum), 0.0)


def judged_as_drawn(counted: Counted) -> Verdict:
    entropy = jackknifed_entropy(counted.spectrum, counted.samples, counted.changes)
    return verdict(counted.spectrum, counted.samples, entropy.estimate, entropy.margin())


def test_states_of_single_samples_limit_the_layer() -> None:
    found = verdict(Spectrum.from_arrays([1, 2], [1, 2], [9_998, 1]), 10_000, 25.0, 0.1)
    assert found.name == SAMPLE_LIMITED == "sample-limited"
    assert found.samples_needed is None
    assert found.reason == (
        "More samples are needed: 100.0 % of the rows are in states seen in one sample only "
        "(more than 10 %)."
    )


def test_a_few_of_them_leave_the_estimate_usable() -> None:
    found = judged([500, 450] + [1] * 50)
    assert found.name == USABLE == "usable"
    assert found.reason == (
        "Enough for the estimate, not for the plug-in: 5.0 % of the rows are in states seen in one "
        "sample only (more than 2 %)."
    )
    assert found.samples_needed == 1_000


def test_shared_states_make_the_layer_saturated() -> None:
    found = verdict(EVEN, 1_000, BITS / 0.995, 0.01 * BITS)
    assert found.name == SATURATED == "saturated"
    assert found.reason == (
        "Enough even for the plug-in: 0.0 % of the rows are in states seen in one sample only, "
        "and the plug-in is 0.5 % below the estimate."
    )


@pytest.mark.parametrize(
    ("samples", "shortfall", "margin", "name", "failed"),
    [
        (1_000, 0.03, 0.01, USABLE, "the plug-in is 3.0 % below the estimate (more than 2 %)"),
        (1_000, 0.07, 0.03, SAMPLE_LIMITED, "the plug-in is 7.0 % below the estimate (more than"),
        (1_000, 0.01, 0.03, USABLE, "the estimate is known to ± 3.0 % only (more than 2 %)"),
        (1_000, 0.01, 0.08, SAMPLE_LIMITED, "the estimate is known to ± 8.0 % only (more than 5"),
        (1_000, 0.012, 0.009, USABLE, "1.2 % below an estimate known to ± 0.9 %, together more"),
        (1_000, 0.012, 0.007, SATURATED, ""),
        (63, 0.0, 0.0, SAMPLE_LIMITED, "there are 63 samples (fewer than 64)"),
        (64, 0.0, 0.0, SATURATED, ""),
        (1_000, 0.0, math.inf, SAMPLE_LIMITED, "fewer than two groups of samples leave open"),
    ],
)
def test_the_reason_names_the_condition_that_fails(
    samples, shortfall, margin, name, failed
) -> None:
    spectrum = Spectrum.from_arrays(EVEN.multiplicity, [20, 60, 63], EVEN.states)
    estimate = plug_in(spectrum) / (1 - shortfall)
    found = verdict(spectrum, samples, estimate, margin * estimate)
    assert found.name == name
    assert failed in found.reason
    assert found.reason.endswith(".")
    assert found.reason.count(". ") == 0


def test_the_limits_themselves_still_hold() -> None:
    assert USABLE_UP_TO == (0.10, 0.05, 0.05)
    assert SATURATED_UP_TO == (0.02, 0.02, 0.02)
    assert PLUG_IN_OFF_UP_TO == 0.02
    assert judged([90] + [1] * 10).name == USABLE
    assert judged([89] + [1] * 11).name == SAMPLE_LIMITED
    assert judged([98] + [1] * 2).name == SATURATED
    assert judged([97] + [1] * 3).name == USABLE


def test_without_a_margin_the_reason_says_that_it_was_left_out() -> None:
    names = []
    for shortfall in (0.0, 0.03, 0.1):
        found = verdict(EVEN, 1_000, BITS / (1 - shortfall))
        names.append(found.name)
        assert found.reason.endswith("; how much the estimate scatters was not computed.")
    assert names == [SATURATED, USABLE, SAMPLE_LIMITED]


def test_many_rows_of_one_sample_are_still_one_sample() -> None:
    found = verdict(Spectrum.from_counts([64] * 100, [1] * 100), 100, 10.0, 0.0)
    assert found.name == SAMPLE_LIMITED
    assert "100.0 %" in found.reason


def test_a_layer_with_one_state_is_saturated() -> None:
    spectrum = Spectrum.from_counts([6_400], [100])
    assert verdict(spectrum, 100, 0.0, 0.0).name == SATURATED
    assert verdict(spectrum, 100, 0.0, 0.1).name == SAMPLE_LIMITED


def test_rows_say_saturated_where_samples_say_limited() -> None:
    shares, samples = uniform(2_000), 160
    counted = Counted.of(clumped_rows(np.random.default_rng(1), shares, samples))
    rows = Spectrum.from_counts(np.repeat(counted.spectrum.multiplicity, counted.spectrum.states))
    by_rows = verdict(rows, rows.rows, chao_wang_jost(rows), 0.0)
    assert by_rows.name == SATURATED
    assert chao_wang_jost(rows) < shannon_entropy(shares) - 0.8
    by_samples = judged_as_drawn(counted)
    assert by_samples.name == SAMPLE_LIMITED
    assert "of the rows are in states seen in one sample only (more than 10 %)" in by_samples.reason
    estimate = chao_wang_jost_by_samples(counted.spectrum, samples, counted.equal_pairs)
    assert estimate == pytest.approx(shannon_entropy(shares), abs=0.15)


@pytest.mark.parametrize(
    ("shares", "positions", "few", "enough"),
    [(uniform(500), 1, 800, 1_300), (zipf(300), 1, 400, 900), (uniform(500), 64, 65, 105)],
    ids=["uniform", "Zipf", "uniform, clumped"],
)
def test_the_samples_needed_are_about_what_it_takes(shares, positions, few, enough) -> None:
    rng = np.random.default_rng(2)
    limited = [
        judged_as_drawn(Counted.of(clumped_rows(rng, shares, few, positions))) for _ in range(7)
    ]
    assert {found.name for found in limited} == {SAMPLE_LIMITED}
    needed = [found.samples_needed or 4 * few for found in limited]
    assert 0.75 * enough < np.median(needed) < 1.6 * enough
    later = judged_as_drawn(Counted.of(clumped_rows(rng, shares, int(1.3 * enough), positions)))
    assert later.name in (USABLE, SATURATED)
    assert later.samples_needed == int(1.3 * enough)


@pytest.mark.parametrize(("samples", "saturated"), [(200, (0, 10)), (400, (90, 100))])
def test_the_plug_in_of_a_saturated_layer_is_right(samples, saturated) -> None:
    rng, shares = np.random.default_rng(5), 0.97 ** np.arange(400)
    shares /= shares.sum()
    off = []
    for _ in range(100):
        counted = Counted.of(clumped_rows(rng, shares, samples))
        if judged_as_drawn(counted).name == SATURATED:
            off.append(abs(plug_in(counted.spectrum) / shannon_entropy(shares) - 1) > 0.02)
    assert saturated[0] <= len(off) <= saturated[1]
    assert sum(off) <= 1


def test_far_too_few_samples_need_more_than_can_be_told() -> None:
    rows = independent_rows(np.random.default_rng(3), uniform(5_000), 500)
    assert judged_as_drawn(Counted.of(rows)).samples_needed is None
    assert verdict(Spectrum.from_counts([10, 10]), 20, 1.0, 0.0).samples_needed is None
    assert verdict(Spectrum.from_counts([15, 15]), 30, 1.0, 0.0).samples_needed == 64
    assert verdict(EVEN, 1_000, BITS, 0.08 * BITS).samples_needed == 2_560
    assert verdict(EVEN, 1_000, BITS, 0.1 * BITS).samples_needed is None


def test_whatever_speaks_against_the_samples_limits_the_layer() -> None:
    found = verdict(EVEN, 1_000, BITS, 0.01, doubts=["each comes four times", "another"])
    expected = "The samples are no independent draws: each comes four times."
    assert found == Verdict(SAMPLE_LIMITED, expected, None)


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="there are no rows"):
        verdict(Spectrum.empty(), 0, 0.0)
