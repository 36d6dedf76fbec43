from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import Counted as GroupedCounts
from scipy.special import stdtrit

from tsstore.statistics.bounds import (
    entropy_lower_bound,
    entropy_lower_bound_by_groups,
    pairs_within_groups,
    triple_agreement,
)
from tsstore.statistics.spectrum import Spectrum

Counts = npt.NDArray[np.int64]


@dataclass
class Counted:
    """What counting gives for rows of shape (samples, states): how often each has each."""

    spectrum: Spectrum
    equal_pairs: int
    pairs: int

    @classmethod
    def of(cls, table: Counts) -> Counted:
        seen = table.sum(axis=0) > 0
        positions = table.sum(axis=1)
        return cls(
            Spectrum.from_counts(table.sum(axis=0)[seen], (table > 0).sum(axis=0)[seen]),
            int((table * (table - 1) // 2).sum()),
            int((positions * (positions - 1) // 2).sum()),
        )

    def bound(self, level: float = 0.95) -> float:
        return entropy_lower_bound(
            self.spectrum,
            equal_pairs_within_samples=self.equal_pairs,
            pairs_within_samples=self.pairs,
            level=level,
        )


def reference_bound(table: Counts, level: float) -> float:
    """Evaluate the same bound from the table itself, pair by pair, in 30 digits."""
    with mpmath.workdps(30):
        p = [mpmath.mpf(int(row.sum())) for row in table]
        n = mpmath.fsum(p)
        m = n**2 / mpmath.fsum(value**2 for value in p)
        sample_pairs = list(itertools.combinations(range(len(table)), 2))
        equal = sum(int(table[a] @ table[b]) for a, b in sample_pairs)
        mu2 = equal / mpmath.fsum(p[a] * p[b] for a, b in sample_pairs)
        triples = mpmath.fsum(
            mpmath.mpf(int(state.sum())) ** 3 * (1 - mpmath.mpf(1) / q) * (1 - mpmath.mpf(2) / q)
            for state in table.T
            if (q := int((state > 0).sum())) > 0
        )
        mu3 = triples / (n**3 * (1 - 1 / m) * (1 - 2 / m))
        pairs = m * (m - 1) / 2
        variance = (2 * (m - 2) * (mu3 - mu2**2) + mu2 - mu2**2) / pairs
        phi = max(mpmath.mpf(1), variance * pairs**2 / (mu2 * pairs)) if mu2 else mpmath.mpf(1)
        shape = mu2 * pairs / phi + 1
        quantile = mpmath.findroot(
            lambda x: mpmath.gammainc(shape, 0, x, regularized=True) - level,
            (shape / 100, shape + 10 * mpmath.sqrt(shape) + 10),
            solver="bisect",
            maxsteps=200,
        )
        return float(max(0, mpmath.log(pairs / (phi * quantile), 2)))


def clumped_rows(
    rng: np.random.Generator, shares: npt.NDArray[np.float64], samples: int, positions: int
) -> Counts:
    """Draw a table in which each row repeats the one before it with chance 0.8."""
    rows = rng.choice(shares.size, size=(samples, positions), p=shares)
    for position in range(1, positions):
        stay = rng.random(samples) < 0.8
        rows[stay, position] = rows[stay, position - 1]
    table = np.zeros((samples, shares.size), dtype=np.int64)
    np.add.at(table, (np.arange(samples)[:, None], rows), 1)
    return table


def zipf(states: int) -> npt.NDArray[np.float64]:
    weights = 1 / np.arange(1, states + 1)
    return weights / weights.sum()


def uniform(states: int) -> npt.NDArray[np.float64]:
    return np.full(states, 1 / states)


def collision_entropy(shares: npt.NDArray[np.float64]) -> float:
    return -math.log2((shares**2).sum())


def shannon_entropy(shares: npt.NDArray[np.float64]) -> float:
    return -float((shares * np.log2(shares)).sum())


def test_without_equal_pairs_only_the_number_of_pairs_counts() -> None:
    rows = 10_000
    bound = entropy_lower_bound(Spectrum.from_arrays([1], [1], [rows]))
    assert bound == pytest.approx(math.log2(rows * (rows - 1) / 2) - math.log2(2.9957323), abs=1e-7)
    assert bound == pytest.approx(math.log2(rows * (rows - 1) / 2) - math.log2(3.0), abs=3e-3)
    assert bound > math.log2(rows)


def test_one_equal_pair_in_ten_thousand_rows_gives_twenty_three_bits() -> None:
    bound = entropy_lower_bound(Spectrum.from_arrays([1, 2], [1, 2], [9_998, 1]))
    assert bound / 100 == pytest.approx(0.233, abs=5e-4)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("counts", [[1] * 40, [2] + [1] * 40, [9, 4, 3, 1, 1, 1], [30, 5, 5, 1]])
def test_one_position_a_sample_gives_the_formula_for_independent_rows(
    counts: list[int], level: float
) -> None:
    drawn = np.repeat(np.arange(len(counts)), counts)
    table = np.eye(len(counts), dtype=np.int64)[drawn]
    bound = entropy_lower_bound(Spectrum.from_counts(counts), level=level)
    assert bound == pytest.approx(reference_bound(table, level), rel=1e-11, abs=1e-12)
    assert bound == Counted.of(table).bound(level)


@pytest.mark.parametrize("positions", [[4] * 30, [1, 2, 3, 4, 5] * 6, [40] + [3] * 40])
@pytest.mark.parametrize("shares", [uniform(50), zipf(12), uniform(5_000)])
def test_several_positions_give_the_formula_for_effective_samples(
    shares: npt.NDArray[np.float64], positions: list[int]
) -> None:
    rng = np.random.default_rng(11)
    table = np.stack([clumped_rows(rng, shares, 1, count)[0] for count in positions])
    table = table[:, table.sum(axis=0) > 0]
    counted = Counted.of(table)
    assert counted.bound() == pytest.approx(reference_bound(table, 0.95), rel=1e-11, abs=1e-12)
    assert counted.bound(0.99) <= counted.bound(0.9)


def test_copies_of_every_row_within_its_sample_change_nothing() -> None:
    once = np.eye(6, dtype=np.int64)[[0, 0, 0, 1, 1, 2, 3, 4, 5, 0, 2]]
    expected = Counted.of(once).bound()
    assert expected > 0
    assert Counted.of(64 * once).bound() == pytest.approx(expected, rel=1e-12)


def test_more_rows_than_a_float_can_count_pairs_of() -> None:
    half = 5 * 10**12
    bound = entropy_lower_bound(
        Spectrum.from_arrays([half - 1, half + 1], [half - 1, half + 1], [1, 1])
    )
    assert bound == pytest.approx(1.0, abs=1e-5)
    assert bound < 1.0
    lone = entropy_lower_bound(Spectrum.from_arrays([1], [1], [10**13]))
    assert lone == pytest.approx(2 * math.log2(10**13) - 1 - math.log2(2.9957323), abs=1e-6)


def test_too_few_samples_give_no_bound() -> None:
    assert entropy_lower_bound(Spectrum.empty()) == 0.0
    assert entropy_lower_bound(Spectrum.from_counts([1])) == 0.0
    assert entropy_lower_bound(Spectrum.from_counts([1, 1])) == 0.0
    assert Counted.of(np.eye(8, dtype=np.int64)[:1] * 500).bound() == 0.0
    assert Counted.of(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 98]])).bound() == 0.0


def test_a_single_state_gives_zero_not_less() -> None:
    assert entropy_lower_bound(Spectrum.from_counts([50])) == 0.0


@pytest.mark.parametrize("level", [0, 1, -0.1, 95, math.nan])
def test_level_must_be_a_probability(level: float) -> None:
    with pytest.raises(ValueError, match=r"level must be between 0 and 1"):
        entropy_lower_bound(Spectrum.from_counts([1, 2]), level=level)


@pytest.mark.parametrize(
    ("equal_pairs", "pairs", "message"),
    [
        (0, 0, r"equal_pairs_within_samples must be from 3 .* found 0"),
        (11, 11, r"equal_pairs_within_samples .* to 10 .* found 11"),
        (4, 3, r"pairs_within_samples must be from 4 .* found 3"),
        (4, 100, r"pairs_within_samples .* to 45 .* found 100"),
    ],
)
def test_pairs_that_contradict_the_spectrum_are_refused(
    equal_pairs: int, pairs: int, message: str
) -> None:
    spectrum = Spectrum.from_counts([5, 1, 1, 1, 1, 1], [2, 1, 1, 1, 1, 1])
    with pytest.raises(ValueError, match=message):
        entropy_lower_bound(
            spectrum, equal_pairs_within_samples=equal_pairs, pairs_within_samples=pairs
        )


@given(
    st.lists(
        st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any), min_size=4, max_size=8
    )
)
@settings(deadline=None, max_examples=60)
def test_triples_are_never_estimated_below_the_count_over_three_samples(
    rows: list[list[int]],
) -> None:
    table = np.array(rows)
    positions = table.sum(axis=1)
    samples = positions.sum() ** 2 / (positions**2).sum()
    if samples < 3:
        return
    threes = list(itertools.combinations(range(len(table)), 3))
    equal = sum(int((table[a] * table[b] * table[c]).sum()) for a, b, c in threes)
    possible = sum(int(positions[a] * positions[b] * positions[c]) for a, b, c in threes)
    estimate = triple_agreement(Counted.of(table).spectrum, samples)
    assert estimate >= equal / possible * (1 - 1e-12)


@pytest.mark.parametrize(
    ("shares", "rows"),
    [(uniform(5_000), 2_000), (uniform(100), 500), (zipf(20_000), 3_000)],
    ids=["uniform, few repeats", "uniform, many repeats", "Zipf"],
)
def test_bound_holds_for_independent_rows(shares: npt.NDArray[np.float64], rows: int) -> None:
    rng = np.random.default_rng(3)
    draws = [rng.multinomial(rows, shares) for _ in range(150)]
    bounds = np.array([entropy_lower_bound(Spectrum.from_counts(d[d > 0])) for d in draws])
    truth = collision_entropy(shares)
    assert np.mean(bounds <= truth) >= 0.90
    assert np.median(bounds) >= truth - 0.5
    if shannon_entropy(shares) > truth + 0.01:
        assert (bounds <= shannon_entropy(shares)).all()


@pytest.mark.parametrize(
    ("top", "others", "rows"),
    [(0.7, 3, 10), (0.5, 3, 30), (0.5, 2, 100), (0.1, 100, 100), (0.03, 10_000, 100)],
)
def test_shannon_entropy_is_bounded_even_where_few_rows_say_little_of_the_collisions(
    top: float, others: int, rows: int
) -> None:
    shares = np.r_[top, np.full(others, (1 - top) / others)]
    draws = np.random.default_rng(6).multinomial(rows, shares, size=400)
    bounds = np.array([entropy_lower_bound(Spectrum.from_counts(d[d > 0])) for d in draws])
    assert np.mean(bounds <= shannon_entropy(shares)) >= 0.95


@pytest.mark.parametrize("shares", [uniform(2_000), zipf(2_000)], ids=["uniform", "Zipf"])
@pytest.mark.parametrize("samples", [40, 200])
def test_bound_holds_where_rows_of_a_sample_repeat_each_other(
    shares: npt.NDArray[np.float64], samples: int
) -> None:
    rng = np.random.default_rng(4)
    bounds = np.array(
        [Counted.of(clumped_rows(rng, shares, samples, 64)).bound() for _ in range(30)]
    )
    assert (bounds <= shannon_entropy(shares)).all()
    assert np.mean(bounds <= collision_entropy(shares)) >= 0.90
    assert (bounds > 1).all()


def bounds_by_groups(
    seed: int, shares: npt.NDArray[np.float64], samples: int, positions: int, repetitions: int
) -> npt.NDArray[np.float64]:
    """Draw, and return pairs of the bounds without and with groups."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(repetitions):
        table = clumped_rows(rng, shares, samples, positions)
        rows = np.stack([np.repeat(np.arange(shares.size), counts) for counts in table])
        grouped = GroupedCounts.of(rows, rng.integers(0, 32, samples))
        with_groups = entropy_lower_bound_by_groups(grouped.spectrum, samples, grouped.changes)
        found.append((Counted.of(table).bound(), with_groups))
    return np.array(found)


@pytest.mark.parametrize("samples", [16, 60])
@pytest.mark.parametrize(
    "shares", [uniform(1_000), zipf(1_000), uniform(20_000)], ids=["uniform", "Zipf", "rare"]
)
def test_groups_of_samples_tighten_the_bound_and_it_holds(shares, samples) -> None:
    plain, by_groups = bounds_by_groups(5, shares, samples, 64, 30).T
    assert np.mean(by_groups <= shannon_entropy(shares)) >= 0.95
    if samples > 16:
        assert np.median(by_groups) > np.median(plain) + 0.5


def by_groups(rows: Counts, group: Counts, **how) -> float:
    grouped = GroupedCounts.of(rows, group)
    return entropy_lower_bound_by_groups(grouped.spectrum, len(rows), grouped.changes, **how)


def not_missed(draws: int, level: float = 0.95) -> float:
    """Return the share of samples that is certainly of kinds that were drawn."""
    return ((1 - level) / 5) ** (1 / draws)


def test_the_bound_by_groups_is_the_jackknife_of_the_collision_entropy() -> None:
    rng = np.random.default_rng(2)
    rows, group = rng.integers(0, 50, (40, 8)), np.arange(40) % 4

    def collision(chosen: Counts) -> float:
        pairs = [
            np.mean(chosen[a][:, None] == chosen[b])
            for a, b in itertools.combinations(range(len(chosen)), 2)
        ]
        return -math.log2(np.mean(pairs))

    without = np.array([collision(rows[group != g]) for g in range(4)])
    error = math.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
    # Two fifths of the risk are this bound's, one is that of the kinds that were missed.
    expected = collision(rows) - float(stdtrit(3, 0.98)) * error
    assert by_groups(rows, group) == pytest.approx(expected * not_missed(40), rel=1e-6)
    assert by_groups(rows, group, level=0.99) < by_groups(rows, group)


def test_where_most_states_were_seen_it_is_the_jackknife_of_the_plug_in() -> None:
    rng = np.random.default_rng(2)
    rows, group = rng.choice(50, (400, 2), p=zipf(50)), np.arange(400) % 8

    def bits(chosen: Counts) -> float:
        return shannon_entropy(np.unique(chosen, return_counts=True)[1] / chosen.size)

    without = np.array([bits(rows[group != g]) for g in range(8)])
    error = math.sqrt(7 / 8 * ((without - without.mean()) ** 2).sum())
    expected = bits(rows) - float(stdtrit(7, 0.98)) * error
    assert by_groups(rows, group) == pytest.approx(expected * not_missed(400), rel=1e-9)
    assert by_groups(rows, group) > collision_entropy(zipf(50)) + 0.3


@pytest.mark.parametrize(
    ("rows", "group"),
    [
        (np.arange(40)[:, None], np.arange(40) % 4),
        (np.arange(80).reshape(20, 4), np.arange(20) % 4),
        (np.arange(80).reshape(20, 4) // 8, np.zeros(20, dtype=np.int64)),
        (np.zeros((2, 3), dtype=np.int64), np.arange(2)),
    ],
    ids=["one position", "no equal pairs", "one group", "two samples"],
)
def test_where_groups_tell_nothing_it_is_that_without_them(rows, group) -> None:
    grouped = GroupedCounts.of(rows, group, groups=4)
    plain = entropy_lower_bound(
        grouped.spectrum,
        equal_pairs_within_samples=grouped.equal_pairs,
        pairs_within_samples=int(grouped.changes.pairs_within_samples.sum()),
        level=0.98,
    )
    found, draws = by_groups(rows, group), len(rows)
    scatterless = math.log2(rows.size) if grouped.spectrum.distinct == rows.size else 0.0
    assert found == pytest.approx(max(plain, scatterless * not_missed(draws)), rel=1e-9)


@pytest.mark.parametrize("positions", [1, 3])
def test_of_clusters_a_whole_group_takes_the_place_of_a_sample(positions: int) -> None:
    rng = np.random.default_rng(3)
    rows, group = rng.integers(0, 60, (30, positions)), np.arange(30) % 10
    grouped = GroupedCounts.of(rows, group, groups=12)
    table = np.zeros((10, 60), dtype=np.int64)
    np.add.at(table, (group[:, None], rows), 1)
    whole = Counted.of(table)
    pairs = {
        "equal_pairs_within_samples": whole.equal_pairs,
        "pairs_within_samples": whole.pairs,
    }
    bound = by_groups(rows, group, clusters=10)
    plain = entropy_lower_bound(grouped.spectrum, **pairs, level=0.98)
    assert bound >= plain
    assert pairs_within_groups(grouped.spectrum, grouped.changes) == tuple(pairs.values())


def test_of_few_clusters_little_is_certain() -> None:
    rows, group = np.arange(400)[:, None], np.arange(400) % 4
    alone, told = by_groups(rows, group), by_groups(rows, group, clusters=4)
    assert alone > 13.5
    # Four draws have missed two thirds of all clusters with a chance of one in a hundred.
    assert told == pytest.approx(math.log2(400) * not_missed(4), rel=1e-9)
    # All six pairs of them differ; 3.9 equal ones are expected at most, at 98 %.
    assert told > math.log2(6 / -math.log(0.02))


@pytest.mark.parametrize("clusters", [4, 10, 40])
def test_the_bound_holds_where_samples_of_a_cluster_are_all_the_same(clusters: int) -> None:
    rng, shares = np.random.default_rng(0), np.array([0.9, 0.1])
    told, alone = [], []
    for _ in range(100):
        rows = np.repeat(rng.choice(2, clusters, p=shares), 20)[:, None]
        group = np.repeat(rng.integers(0, 32, clusters), 20)
        told.append(by_groups(rows, group, clusters=clusters))
        alone.append(by_groups(rows, group))
    assert np.mean(np.array(told) <= shannon_entropy(shares)) >= 0.95
    assert np.mean(told) < np.mean(alone)


@pytest.mark.parametrize(
    ("share", "samples", "states", "bits"),
    [(0.25, 8, 1, 20), (0.1, 16, 1, 20), (0.05, 32, 1, 20), (0.02, 64, 1, 20), (0.1, 8, 4, 12)],
)
def test_it_holds_where_a_share_of_the_samples_shows_few_states(
    share, samples, states, bits
) -> None:
    # With no or one such sample drawn nothing scatters.
    rng, found = np.random.default_rng(6), []
    between = shannon_entropy(np.array([share, 1 - share]))
    truth = between + share * math.log2(states) + (1 - share) * bits
    for _ in range(30):
        rows = rng.integers(states, 2**bits + states, (samples, 576))
        few = rng.random(samples) < share
        rows[few] = rng.integers(0, states, (few.sum(), 1))
        found.append(by_groups(rows, rng.permutation(samples) % 32))
    assert max(found) <= truth
    assert np.median(found) > 0.15 * truth


def test_groups_of_other_samples_are_refused() -> None:
    grouped = GroupedCounts.of(np.arange(80).reshape(20, 4), groups=4)
    with pytest.raises(ValueError, match="20 samples and 80 rows, but 21 samples"):
        entropy_lower_bound_by_groups(grouped.spectrum, 21, grouped.changes)


def test_few_long_samples_of_their_own_states_are_not_forgotten():
    """2 % of the samples have 64 rows of one of 4 states, the others one of 16 other states."""
    rng = np.random.default_rng(5)
    shares = np.r_[np.full(4, 0.02 * 64 / 4), np.full(16, 0.98 / 16)]
    shares /= shares.sum()
    truth, above, none_drawn = -float(shares @ np.log2(shares)), 0, 0
    for _ in range(60):
        long = rng.random(200) < 0.02
        sample = np.repeat(np.arange(200), np.where(long, 64, 1))
        blank = rng.integers(0, 4, 200)  # Of a long sample all rows are of one state.
        own = np.where(long, blank, rng.integers(4, 20, 200))[sample]
        counted = GroupedCounts.of_each(own, sample, rng.integers(0, 32, 200))
        above += entropy_lower_bound_by_groups(counted.spectrum, 200, counted.changes) > truth
        none_drawn += not long.any()
    assert above <= none_drawn + 3
