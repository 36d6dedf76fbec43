from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sampling import Counted, clumped_rows, independent_rows, shannon_entropy, uniform, zipf

from tsstore.statistics.estimators import plug_in
from tsstore.statistics.intervals import Jackknifed, jackknifed_entropy
from tsstore.statistics.sample_estimator import chao_wang_jost_by_samples
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import (
    CONSTANT,
    IMPRECISE,
    SAMPLE_LIMITED,
    SATURATED,
    SATURATED_UP_TO,
    UNSEEN_UP_TO,
    USABLE,
    USABLE_UP_TO,
    Verdict,
    verdict,
)

EVEN = Spectrum.from_counts([500, 480, 20])
BITS = plug_in(EVEN)


def judged_as_drawn(counted: Counted, neurons: int = 12) -> Verdict:
    spectrum, samples = counted.spectrum, counted.samples
    entropy = jackknifed_entropy(spectrum, samples, counted.changes, neurons=neurons)
    return verdict(spectrum, samples, entropy, neurons)


def judged(
    estimate: float = BITS,
    below: float = 0.0,
    above: float = 0.0,
    margin: float = 0.0,
    samples: int = 1_000,
    neurons: int = 4,
) -> Verdict:
    """Judge what has such an estimate and may be so much lower or higher, in bits."""
    groups = np.full(32, 10)
    unit = np.tile([1.0, -1.0], 16)
    known = Jackknifed(0.0, 0.0, 0.0, unit, groups)
    without = unit * margin / known.margin()
    entropy = Jackknifed(estimate, estimate - below, estimate + above, without, groups)
    return verdict(EVEN, samples, entropy, neurons)


def unseen(singles: int) -> Verdict:
    """Judge a spectrum with so many states of one of 100 samples, were nothing else uncertain."""
    spectrum = Spectrum.from_counts([100 - singles, *[1] * singles])
    entropy = jackknifed_entropy(spectrum, 100, None, neurons=8)
    missed = replace(entropy.missed, samples=10**9, states_left=-math.inf)
    entropy = replace(entropy, lowest=entropy.estimate, missed=missed)
    return verdict(spectrum, 100, entropy, 8)


def test_the_limits_are_shares_of_the_entropy_or_of_the_neurons() -> None:
    assert SATURATED_UP_TO == (0.02, 0.005)
    assert USABLE_UP_TO == (0.05, 0.01)
    assert UNSEEN_UP_TO == 0.1


@pytest.mark.parametrize(
    ("case", "name", "part"),
    [
        ({}, SATURATED, "Enough even for the plug-in: the plug-in is off by at most 0 bits (0 %)."),
        ({"above": 0.019 * BITS}, SATURATED, "at most 0.0213 bits (1.9 %)"),
        (
            {"above": 0.021 * BITS},
            USABLE,
            "Enough for the estimate, not for the plug-in: the plug-in may be off by 0.0235 bits "
            "(2.1 %), more than 2 % and 0.005 of efficiency.",
        ),
        ({"above": 0.021 * BITS, "neurons": 5}, SATURATED, "(2.1 %)"),
        ({"below": 0.021 * BITS}, USABLE, "(2.1 %)"),
        ({"margin": 0.021 * BITS / 1.2027}, USABLE, "(2.1 %)"),
        ({"margin": 0.019 * BITS / 1.2027}, SATURATED, "(1.9 %)"),
        ({"estimate": 1.03 * BITS}, USABLE, "(2.91 %)"),
        ({"above": 0.049 * BITS}, USABLE, "(4.9 %)"),
        (
            {"above": 0.051 * BITS},
            IMPRECISE,
            "Enough for the interval, not for the estimate: with what was not seen the estimate "
            "may be off by 0.0572 bits (5.1 %), more than 5 % and 0.01 of efficiency.",
        ),
        ({"above": 0.051 * BITS, "neurons": 6}, USABLE, "(5.1 %)"),
        (
            {"margin": 0.051 * BITS},
            IMPRECISE,
            "the estimate is known to ± 0.0572 bits (5.1 %) only, more than 5 % and",
        ),
        ({"samples": 63}, SAMPLE_LIMITED, "there are 63 samples (fewer than 64)."),
        ({"samples": 64}, SATURATED, ""),
        ({"samples": 1}, SAMPLE_LIMITED, "there is 1 sample (fewer than 64)."),
    ],
)
def test_the_verdict_tells_how_far_off_estimate_and_plug_in_may_be(case, name, part) -> None:
    found = judged(**case)
    assert found.name == name
    assert part in found.reason
    assert found.reason.endswith(".")
    assert found.reason.count(". ") == 0
    assert bool(found.needs) == (name not in (SATURATED, USABLE))


def test_states_of_single_samples_limit_the_layer() -> None:
    assert (unseen(10).name, unseen(11).name) == (USABLE, SAMPLE_LIMITED)
    assert unseen(11).reason == (
        "More samples are needed: 11.0 % of the rows are in states seen in one sample only (more "
        "than 10 %); how much the estimate scatters was not computed."
    )


def test_many_rows_of_one_sample_are_still_one_sample() -> None:
    spectrum = Spectrum.from_counts([64] * 100, [1] * 100)
    entropy = jackknifed_entropy(spectrum, 100, None, neurons=10)
    found = verdict(spectrum, 100, entropy, 10)
    assert found.name == SAMPLE_LIMITED
    assert "100.0 %" in found.reason
    assert found.needs == "more than 300 samples"


@pytest.mark.parametrize(
    ("samples", "neurons", "name", "reason"),
    [
        (
            100,
            20,
            CONSTANT,
            "Constant: one state in 100 samples; states that were not seen may add up to 0.74 bits "
            "(0.037 of efficiency).",
        ),
        (
            10_000,
            20,
            SATURATED,
            "Constant: one state in 10,000 samples; states that were not seen may add up to 0.0095 "
            "bits (0.000475 of efficiency).",
        ),
        (16, 20, CONSTANT, "Constant: one state in 16 samples; "),
        (1_000, 1, CONSTANT, "Constant: one state in 1,000 samples; "),
        (10_000, 1, SATURATED, "Constant: one state in 10,000 samples; "),
    ],
)
def test_a_constant_layer_says_so_and_is_saturated_once_an_unseen_state_adds_little(
    samples, neurons, name, reason
) -> None:
    counted = Counted.of(np.zeros((samples, 3), dtype=np.int64))
    found = judged_as_drawn(counted, neurons)
    assert found.name == name
    assert found.reason.startswith(reason)
    assert bool(found.needs) == (name == CONSTANT)


def test_a_constant_layer_of_too_few_groups_has_no_interval() -> None:
    assert judged_as_drawn(Counted.of(np.zeros((4, 3), dtype=np.int64)), 20).name == SAMPLE_LIMITED


def test_rows_say_saturated_where_samples_say_limited() -> None:
    shares, samples = uniform(2_000), 160
    counted = Counted.of(clumped_rows(np.random.default_rng(1), shares, samples))
    rows = Spectrum.from_counts(np.repeat(counted.spectrum.multiplicity, counted.spectrum.states))
    by_rows = verdict(rows, rows.rows, jackknifed_entropy(rows, rows.rows, None, neurons=12), 12)
    assert by_rows.name in (SATURATED, USABLE)
    assert plug_in(rows) < shannon_entropy(shares) - 0.8
    by_samples = judged_as_drawn(counted)
    assert by_samples.name == SAMPLE_LIMITED
    assert "of the rows are in states seen in one sample only (more than 10 %)" in by_samples.reason
    estimate = chao_wang_jost_by_samples(counted.spectrum, samples, counted.equal_pairs)
    assert estimate == pytest.approx(shannon_entropy(shares), abs=0.15)


@pytest.mark.parametrize(
    ("shares", "positions", "few", "enough"),
    [(uniform(500), 1, 1_300, 1_900), (zipf(300), 1, 1_300, 1_900), (uniform(500), 64, 100, 150)],
    ids=["uniform", "Zipf", "uniform, clumped"],
)
def test_the_samples_needed_are_about_what_it_takes(shares, positions, few, enough) -> None:
    rng = np.random.default_rng(2)
    limited = [
        judged_as_drawn(Counted.of(clumped_rows(rng, shares, few, positions))) for _ in range(7)
    ]
    assert {found.name for found in limited} <= {SAMPLE_LIMITED, IMPRECISE}
    needed = [found.samples_needed or 4 * few for found in limited]
    assert 0.75 * enough < np.median(needed) < 1.6 * enough
    later = judged_as_drawn(Counted.of(clumped_rows(rng, shares, int(1.3 * enough), positions)))
    assert later.name in (USABLE, SATURATED)
    assert later.samples_needed == int(1.3 * enough)


def test_samples_needed_follow_from_what_is_too_large() -> None:
    assert judged(samples=20).samples_needed is None
    assert judged(samples=20).needs == "more than 60 samples"
    assert judged(samples=32).samples_needed == 64
    assert judged(samples=32).needs == "about 64 samples"
    # A margin falls like one by the root of the samples.
    assert judged(margin=0.08 * BITS).samples_needed == pytest.approx(2_560, abs=10)
    assert judged(margin=0.08 * BITS).needs == "about 2,600 samples"
    assert judged(margin=0.1 * BITS).samples_needed is None
    assert judged(margin=0.1 * BITS).needs == "more than 3,000 samples"


def test_far_too_few_samples_need_more_than_can_be_told() -> None:
    rows = independent_rows(np.random.default_rng(3), uniform(5_000), 500)
    assert judged_as_drawn(Counted.of(rows), 20).needs == "more than 1,500 samples"


@pytest.mark.parametrize(
    ("rate", "neurons", "samples"), [(0.1, 1, 3_000), (0.02, 1, 1_000), (0.003, 10, 1_000)]
)
def test_the_interval_of_an_imprecise_layer_holds(rate, neurons, samples) -> None:
    rng = np.random.default_rng(9)
    truth, held = neurons * shannon_entropy(np.array([rate, 1 - rate])), []
    for _ in range(60):
        fires = rng.random((samples, 1, neurons)) < rate
        counted = Counted.of(fires @ (1 << np.arange(neurons)))
        if judged_as_drawn(counted, neurons).name == IMPRECISE:
            entropy = jackknifed_entropy(
                counted.spectrum, samples, counted.changes, neurons=neurons
            )
            shown = entropy.interval(largest=neurons)
            held.append(shown.lower <= truth <= shown.upper)
    assert len(held) >= 55
    assert np.mean(held) >= 0.9


def test_a_neuron_that_fires_with_p_of_a_tenth_is_usable_from_some_10_000_samples() -> None:
    rng, names = np.random.default_rng(10), {}
    for samples in (3_000, 12_000):
        rows = [rng.random((samples, 1)) < 0.1 for _ in range(20)]
        names[samples] = {judged_as_drawn(Counted.of(one.astype(int)), 1).name for one in rows}
    assert names == {3_000: {IMPRECISE}, 12_000: {USABLE}}


def mixture(rng: np.random.Generator, samples: int, share: float, bits: int) -> np.ndarray:
    """Draw 256 even states, and a share of rows that are evenly spread over many others."""
    rare = rng.random((samples, 1)) < share
    return np.where(
        rare, rng.integers(256, 1 << bits, rare.shape), rng.integers(0, 256, rare.shape)
    )


@pytest.mark.parametrize(("share", "bits"), [(0.015, 40), (0.015, 20), (0.04, 40)])
def test_a_small_very_diverse_part_of_the_rows_misleads_no_verdict(share, bits) -> None:
    rng = np.random.default_rng(7)
    between = shannon_entropy(np.array([share, 1 - share]))
    truth, held = between + 8 * (1 - share) + bits * share, []
    for _ in range(30):
        counted = Counted.of(mixture(rng, 10_000, share, bits))
        found = judged_as_drawn(counted, bits + 4)
        entropy = jackknifed_entropy(counted.spectrum, 10_000, counted.changes, neurons=bits + 4)
        shown, if_rare = entropy.interval(), entropy.interval(unseen_like_rare=True)
        held.append((shown.lower <= truth <= shown.upper, if_rare.upper >= truth))
        assert found.name != SATURATED
        if found.name == USABLE:
            assert abs(entropy.estimate / truth - 1) < 0.05
    shown, if_rare = np.mean(held, axis=0)
    assert shown >= 0.9
    assert if_rare < 0.5


@pytest.mark.parametrize("samples", [1_200, 7_000])
def test_the_plug_in_of_a_saturated_layer_is_right(samples) -> None:
    rng, shares = np.random.default_rng(5), 0.97 ** np.arange(400)
    shares /= shares.sum()
    off = []
    for _ in range(40):
        counted = Counted.of(clumped_rows(rng, shares, samples, 4))
        if judged_as_drawn(counted).name == SATURATED:
            off.append(abs(plug_in(counted.spectrum) / shannon_entropy(shares) - 1) > 0.02)
    assert len(off) == {1_200: 0, 7_000: 40}[samples]
    assert sum(off) <= 1


def test_whatever_speaks_against_the_samples_limits_the_layer() -> None:
    entropy = jackknifed_entropy(EVEN, 1_000, None, neurons=4)
    found = verdict(EVEN, 1_000, entropy, 4, doubts=["each comes four times", "another"])
    expected = "The samples are no independent draws: each comes four times."
    assert found == Verdict(SAMPLE_LIMITED, expected, None, "independent samples")


def test_no_rows_is_an_error() -> None:
    entropy = jackknifed_entropy(EVEN, 1_000, None, neurons=4)
    with pytest.raises(ValueError, match="there are no rows"):
        verdict(Spectrum.empty(), 0, entropy, 4)
