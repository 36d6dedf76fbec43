from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sampling import (
    Counted,
    clumped_rows,
    delta_of_counts,
    independent_rows,
    shannon_entropy,
    uniform,
    zipf,
)

from tsstore.statistics.estimators import plug_in
from tsstore.statistics.intervals import FEWEST_GROUPS, Interval, Jackknifed, jackknifed_entropy
from tsstore.statistics.sample_estimator import chao_wang_jost_by_samples
from tsstore.statistics.spectrum import Spectrum


def drawn(samples: int = 120, groups: int = 32) -> Counted:
    rows = clumped_rows(np.random.default_rng(1), zipf(300), samples, 16)
    return Counted.of(rows, groups=groups)


def entropy_of(counted: Counted, neurons: int = 12, clusters: int | None = None) -> Jackknifed:
    return jackknifed_entropy(
        counted.spectrum, counted.samples, counted.changes, neurons=neurons, clusters=clusters
    )


def shown(counted: Counted, neurons: int = 12, **how) -> Interval:
    return entropy_of(counted, neurons).interval(largest=float(neurons), **how)


def jackknifed(estimate: float, without: list[float], samples: list[int]) -> Jackknifed:
    return Jackknifed(
        estimate, estimate - 0.1, estimate + 0.5, np.array(without), np.array(samples)
    )


def test_like_the_rare_ones_it_is_made_of_the_estimate_its_scatter_and_allowances() -> None:
    counted = drawn()
    entropy = entropy_of(counted)
    found = entropy.interval(unseen_like_rare=True)
    estimate = chao_wang_jost_by_samples(counted.spectrum, 120, counted.equal_pairs)
    equal_rows = chao_wang_jost_by_samples(counted.spectrum, 120)
    margin = 2.039513 * found.standard_error
    assert found.estimate == estimate == entropy.estimate
    assert found.level == 0.95
    added = estimate - plug_in(counted.spectrum)
    assert found.upper == pytest.approx(estimate + added / 2 + margin, rel=1e-6)
    below = (estimate - equal_rows) / 4 + 4 * added / (counted.spectrum.distinct - 1)
    assert found.lower == pytest.approx(estimate - below - margin, rel=1e-6)
    assert entropy.margin() == pytest.approx(margin, rel=1e-6)


def test_what_was_missed_is_added_to_both_ends() -> None:
    entropy = entropy_of(drawn())
    if_rare, found = entropy.interval(unseen_like_rare=True), entropy.interval()
    missed = 1 - 0.025 ** (1 / 120)
    margin, lowest = entropy.margin(), entropy.lowest
    below = math.hypot(margin, missed * entropy.estimate)
    assert found.lower == pytest.approx(lowest - below, rel=1e-12)
    highest = entropy.missed.highest
    above = entropy.missed.at_most(0.95, 2.039513) - highest
    assert found.upper == pytest.approx(highest + math.hypot(margin, above), rel=1e-6)
    assert found.lower < if_rare.lower < if_rare.upper < found.upper
    assert (found.estimate, found.standard_error) == (if_rare.estimate, if_rare.standard_error)


def test_a_higher_level_gives_a_wider_interval() -> None:
    counted = drawn()
    for if_rare in (False, True):
        narrow, middle, wide = (
            shown(counted, level=level, unseen_like_rare=if_rare) for level in (0.5, 0.9, 0.999)
        )
        assert wide.lower < middle.lower < narrow.lower
        assert narrow.upper < middle.upper < wide.upper
        assert narrow.standard_error == wide.standard_error


def test_more_neurons_leave_room_for_more_unseen_states() -> None:
    counted = drawn()
    uppers = [shown(counted, neurons).upper for neurons in (9, 12, 20, 64, 5_000)]
    assert uppers == sorted(uppers)
    assert uppers[-1] > uppers[-2] + 10
    assert shown(counted, 9, unseen_like_rare=True) == shown(counted, unseen_like_rare=True)


def test_it_stays_between_nothing_and_all_neurons() -> None:
    counted = Counted.of(independent_rows(np.random.default_rng(2), uniform(1_000), 64))
    free, bound = entropy_of(counted).interval(), shown(counted, 10)
    assert free.upper > free.estimate > 9
    assert bound.upper <= 10
    assert bound.standard_error == free.standard_error
    low = jackknifed(0.05, [0.0, 0.2, 0.9], [1, 1, 1]).interval()
    assert low.lower == 0.0
    assert low.upper > 0.55


def test_the_estimate_is_inside_where_it_is_more_than_all_states_left_can_hold() -> None:
    # Of eight states seven were seen: one cannot hold what those seen once stand for.
    counted = Counted.of(np.array([*range(5), 5, 5, *[6] * 93])[:, None])
    found = shown(counted, 3)
    assert found.lower < found.estimate <= found.upper < 3


def test_of_one_state_only_what_was_missed_is_not_known() -> None:
    counted = Counted.of(np.zeros((80, 5), dtype=np.int64))
    found = shown(counted, 10)
    assert (found.estimate, found.lower) == (0, 0)
    assert found.standard_error < 1e-15
    # The whole risk is at the upper end, and of what may be missing all rows may differ.
    share = 1 - 0.05 ** (1 / 80)
    assert found.upper == pytest.approx(share * (10 - math.log2(share)), rel=0.05)
    assert shown(counted, 10, unseen_like_rare=True).upper < 1e-15


def test_groups_without_samples_do_not_count() -> None:
    rows = clumped_rows(np.random.default_rng(1), zipf(300), 40, 16)
    few = Counted.of(rows, np.arange(40) % 9, groups=9)
    many = Counted.of(rows, np.arange(40) % 9, groups=32)
    expected, found = shown(few), shown(many)
    assert found.lower == pytest.approx(expected.lower, rel=1e-12)
    assert found.upper == pytest.approx(expected.upper, rel=1e-12)
    assert jackknifed(1.0, [1.0, 2.0, 3.0, 1.0], [4, 0, 3, 2]).margin() == pytest.approx(
        4.302653 * math.sqrt(2 / 3 * (2 * (2 / 3) ** 2 + (4 / 3) ** 2)), rel=1e-6
    )


@pytest.mark.parametrize(("groups", "known"), [(0, False), (1, False), (4, False), (5, True)])
def test_few_groups_tell_too_little_of_the_scatter(groups: int, known: bool) -> None:
    assert FEWEST_GROUPS == 5
    rows = clumped_rows(np.random.default_rng(1), zipf(300), 40, 16)
    counted = Counted.of(rows, np.arange(40) % max(groups, 1))
    if groups == 0:
        counted = replace(counted, changes=None)
    entropy = entropy_of(counted)
    assert entropy.scatter_known == known
    assert entropy.estimate == entropy_of(Counted.of(rows)).estimate or groups == 0
    if groups < 2:
        with pytest.raises(ValueError, match="at least two groups: found 0"):
            _ = entropy.standard_error


@pytest.mark.parametrize("samples", [2, 20, 64])
def test_samples_that_share_no_state_tell_nothing_of_the_scatter(samples: int) -> None:
    counted = Counted.of(np.arange(3 * samples).reshape(samples, 3))
    entropy = entropy_of(counted, 30)
    assert not entropy.scatter_known
    if samples < 32 or samples % 32 == 0:
        assert entropy.standard_error == pytest.approx(0, abs=1e-12)


def test_clusters_are_what_was_drawn() -> None:
    rows = np.repeat(np.random.default_rng(4).integers(0, 50, 60), 20)[:, None]
    counted = Counted.of(rows, np.repeat(np.arange(60) % 32, 20))
    alone, told = entropy_of(counted), entropy_of(counted, clusters=60)
    assert told.missed.samples == 60
    assert told.missed.unseen > 0.1 > alone.missed.unseen == 0
    assert told.interval().upper > alone.interval().upper + 1
    assert told.interval().lower < alone.interval().lower


@pytest.mark.parametrize("shares", [[0.45, 0.55], [0.36, 0.33, 0.31]], ids=["two", "three"])
@pytest.mark.parametrize(("samples", "positions"), [(100, 1), (400, 1), (100, 16)])
def test_shares_that_come_out_even_by_chance_do_not_mislead(shares, samples, positions) -> None:
    # There the estimate hardly changes with the shares, and leaving groups out shows no scatter.
    rng, shares = np.random.default_rng(6), np.array(shares)
    truth, neurons = shannon_entropy(shares), len(shares) - 1
    held, by_scatter = [], []
    for _ in range(100):
        counted = Counted.of(clumped_rows(rng, shares, samples, positions))
        found = shown(counted, neurons, unseen_like_rare=True)
        held.append(found.lower <= truth <= found.upper)
        by_scatter.append(abs(truth - found.estimate) <= 2.04 * found.standard_error)
    assert np.mean(held) >= 0.9
    if len(shares) == 2 and positions == 1:
        assert np.mean(by_scatter) < 0.85


@pytest.mark.parametrize("level", [0, 1, 95, math.nan])
def test_level_must_be_a_probability(level: float) -> None:
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        shown(drawn(), level=level)


def test_no_rows_and_other_changes_are_refused() -> None:
    none = delta_of_counts(np.zeros((0, 2), int), np.zeros((0, 2), int), [0, 0])
    with pytest.raises(ValueError, match="there are no rows"):
        jackknifed_entropy(Spectrum.empty(), 0, none, neurons=3)
    counted = drawn()
    with pytest.raises(ValueError, match="120 samples and 1920 rows, but 119 samples"):
        jackknifed_entropy(counted.spectrum, 119, counted.changes, neurons=12)


@pytest.mark.parametrize(
    ("shares", "samples", "positions"),
    [(uniform(300), 600, 1), (zipf(200), 400, 1), (uniform(500), 100, 32), (zipf(500), 150, 32)],
    ids=["uniform", "Zipf", "uniform, clumped", "Zipf, clumped"],
)
def test_it_holds_the_entropy_about_as_often_as_it_says(shares, samples, positions) -> None:
    rng = np.random.default_rng(8)
    truth = shannon_entropy(shares)
    held, by_rows = 0, 0
    for _ in range(40):
        counted = Counted.of(
            clumped_rows(rng, shares, samples, positions), rng.integers(0, 32, samples)
        )
        found = shown(counted)
        if_rare = shown(counted, unseen_like_rare=True)
        held += found.lower <= truth <= found.upper and if_rare.lower <= truth <= if_rare.upper
        by_rows += abs(plug_in(counted.spectrum) - truth) <= 2.04 * found.standard_error
    assert held >= 36
    assert by_rows <= 30


@pytest.mark.parametrize(
    ("rate", "samples"), [(0.0005, 1_000), (0.003, 1_000), (0.02, 300), (0.1, 3_000)]
)
@pytest.mark.parametrize("neurons", [1, 6])
def test_it_holds_for_neurons_that_hardly_fire(rate, samples, neurons) -> None:
    rng = np.random.default_rng(9)
    truth = neurons * shannon_entropy(np.array([rate, 1 - rate]))
    held = 0
    for _ in range(50):
        fires = rng.random((samples, neurons)) < rate
        found = shown(Counted.of((fires @ (1 << np.arange(neurons)))[:, None]), neurons)
        held += found.lower <= truth <= found.upper
    assert held >= 44


@pytest.mark.parametrize("positions", [1, 16])
@pytest.mark.parametrize("samples", [100, 300])
def test_it_holds_where_a_rare_class_is_very_diverse(samples, positions) -> None:
    # One sample in a hundred is of another kind, and all of its rows differ.
    rng, held, held_if_rare = np.random.default_rng(10), 0, 0
    truth = shannon_entropy(np.array([0.01, 0.99])) + 0.99 * 3 + 0.01 * 40
    for _ in range(40):
        rare = rng.random((samples, 1)) < 0.01
        shape = (samples, positions)
        rows = np.where(rare, rng.integers(8, 2**40, shape), rng.integers(0, 8, shape))
        counted = Counted.of(rows)
        found, if_rare = shown(counted, 64), shown(counted, 64, unseen_like_rare=True)
        held += found.lower <= truth <= found.upper
        held_if_rare += if_rare.lower <= truth <= if_rare.upper
    assert held >= 36
    assert held_if_rare < 30
