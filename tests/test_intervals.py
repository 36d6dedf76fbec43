from __future__ import annotations

import math

import numpy as np
import pytest
from sampling import Counted, clumped_rows, independent_rows, shannon_entropy, uniform, zipf

from tsstore.statistics.by_samples import chao_wang_jost_by_samples
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.intervals import Jackknifed, entropy_interval, jackknifed_entropy
from tsstore.statistics.spectrum import Spectrum


def drawn(samples: int = 120, groups: int = 32) -> Counted:
    rows = clumped_rows(np.random.default_rng(1), zipf(300), samples, 16)
    return Counted.of(rows, groups=groups)


def jackknifed(estimate: float, without: list[float], samples: list[int]) -> Jackknifed:
    return Jackknifed(
        estimate, estimate - 0.1, estimate + 0.5, np.array(without), np.array(samples)
    )


def test_it_is_made_of_the_estimate_its_scatter_and_allowances() -> None:
    counted = drawn()
    found = entropy_interval(counted.spectrum, 120, counted.changes)
    entropy = jackknifed_entropy(counted.spectrum, 120, counted.changes)
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
    assert entropy.interval() == found


def test_a_higher_level_gives_a_wider_interval() -> None:
    counted = drawn()
    levels = (0.5, 0.9, 0.999)
    narrow, middle, wide = (
        entropy_interval(counted.spectrum, 120, counted.changes, level=level) for level in levels
    )
    assert wide.lower < middle.lower < narrow.lower
    assert narrow.upper < middle.upper < wide.upper
    assert narrow.standard_error == wide.standard_error


def test_it_stays_between_nothing_and_all_neurons() -> None:
    counted = Counted.of(independent_rows(np.random.default_rng(2), uniform(1_000), 64))
    free = entropy_interval(counted.spectrum, 64, counted.changes)
    bound = entropy_interval(counted.spectrum, 64, counted.changes, neurons=8)
    assert free.upper > free.estimate > 8
    assert (bound.estimate, bound.upper) == (8, 8)
    assert bound.standard_error == free.standard_error
    low = jackknifed(0.05, [0.0, 0.2, 0.9], [1, 1, 1]).interval()
    assert low.lower == 0.0
    assert low.upper > 0.55


def test_one_state_is_known_exactly() -> None:
    counted = Counted.of(np.zeros((80, 5), dtype=np.int64))
    found = entropy_interval(counted.spectrum, 80, counted.changes)
    assert (found.estimate, found.lower) == (0, 0)
    assert found.upper == pytest.approx(0, abs=1e-14)


def test_groups_without_samples_do_not_count() -> None:
    rows = clumped_rows(np.random.default_rng(1), zipf(300), 20, 16)
    few = Counted.of(rows, np.arange(20) % 5, groups=5)
    many = Counted.of(rows, np.arange(20) % 5, groups=32)
    expected = entropy_interval(few.spectrum, 20, few.changes)
    found = entropy_interval(many.spectrum, 20, many.changes)
    assert found.lower == pytest.approx(expected.lower, rel=1e-12)
    assert found.upper == pytest.approx(expected.upper, rel=1e-12)
    assert jackknifed(1.0, [1.0, 2.0, 3.0, 1.0], [4, 0, 3, 2]).margin() == pytest.approx(
        4.302653 * math.sqrt(2 / 3 * (2 * (2 / 3) ** 2 + (4 / 3) ** 2)), rel=1e-6
    )


def test_a_single_group_tells_nothing() -> None:
    rows = clumped_rows(np.random.default_rng(1), zipf(300), 20, 16)
    counted = Counted.of(rows, np.zeros(20, dtype=np.int64))
    assert entropy_interval(counted.spectrum, 20, counted.changes) is None
    alone = GroupChanges.from_counts([[6, 0]], [[3, 0]], [3, 2])
    assert jackknifed_entropy(Spectrum.from_counts([6], [3]), 5, alone) is None
    with pytest.raises(ValueError, match="at least two groups: found 1"):
        _ = jackknifed(1.0, [1.0, 1.0], [3, 0]).standard_error


@pytest.mark.parametrize("shares", [[0.45, 0.55], [0.36, 0.33, 0.31]], ids=["two", "three"])
@pytest.mark.parametrize(("samples", "positions"), [(100, 1), (400, 1), (100, 16)])
def test_shares_that_come_out_even_by_chance_do_not_mislead(shares, samples, positions) -> None:
    # There the estimate hardly changes with the shares, and leaving groups out shows no scatter.
    rng, shares = np.random.default_rng(6), np.array(shares)
    truth, neurons = shannon_entropy(shares), len(shares) - 1
    held, by_scatter = [], []
    for _ in range(100):
        counted = Counted.of(clumped_rows(rng, shares, samples, positions))
        found = entropy_interval(counted.spectrum, samples, counted.changes, neurons=neurons)
        held.append(found.lower <= truth <= found.upper)
        by_scatter.append(abs(truth - found.estimate) <= 2.04 * found.standard_error)
    assert np.mean(held) >= 0.9
    if len(shares) == 2 and positions == 1:
        assert np.mean(by_scatter) < 0.85


@pytest.mark.parametrize("level", [0, 1, 95, math.nan])
def test_level_must_be_a_probability(level: float) -> None:
    counted = drawn()
    with pytest.raises(ValueError, match="level must be between 0 and 1: found"):
        entropy_interval(counted.spectrum, 120, counted.changes, level=level)


def test_no_rows_and_other_changes_are_refused() -> None:
    none = GroupChanges.from_counts(np.zeros((0, 2), int), np.zeros((0, 2), int), [0, 0])
    with pytest.raises(ValueError, match="there are no rows"):
        entropy_interval(Spectrum.empty(), 0, none)
    counted = drawn()
    with pytest.raises(ValueError, match="120 samples and 1920 rows, but 119 samples"):
        entropy_interval(counted.spectrum, 119, counted.changes)


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
        found = entropy_interval(counted.spectrum, samples, counted.changes)
        held += found.lower <= truth <= found.upper
        by_rows += abs(plug_in(counted.spectrum) - truth) <= 2.04 * found.standard_error
    assert held >= 36
    assert by_rows <= 30
